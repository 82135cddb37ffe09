// Which systems were built in: bench/peers/build.mk defines HAVE_... for those that are installed.
#include "system.h"

std::unique_ptr<System> make_limit();
std::unique_ptr<System> make_control();
std::unique_ptr<System> make_netshm();
std::unique_ptr<System> make_absl();
std::unique_ptr<System> make_hashbrown();
std::unique_ptr<System> make_tdb();
std::unique_ptr<System> make_lmdb();
std::unique_ptr<System> make_boost();
std::unique_ptr<System> make_bdb();
std::unique_ptr<System> make_redis();
std::unique_ptr<System> make_ocamlnet();

std::vector<Maker> all_systems() {
    std::vector<Maker> makers = {make_limit, make_netshm, make_hashbrown};
#ifdef HAVE_ABSL
    makers.push_back(make_absl);
#endif
#ifdef HAVE_TDB
    makers.push_back(make_tdb);
#endif
#ifdef HAVE_LMDB
    makers.push_back(make_lmdb);
#endif
#ifdef HAVE_BOOST
    makers.push_back(make_boost);
#endif
#ifdef HAVE_BDB
    makers.push_back(make_bdb);
#endif
#ifdef HAVE_REDIS
    makers.push_back(make_redis);
#endif
#ifdef HAVE_OCAMLNET
    makers.push_back(make_ocamlnet);
#endif
    makers.push_back(make_control);
    return makers;
}
