/* Generated from src/ffi by `make header`: do not edit. `make check-header` compares. */

/*
 * netshm: hash tables in shared memory for independent processes. Version 0.1.0.
 *
 * Finding a key takes no lock, makes no system call and stores nothing. A process may be killed at any
 * instruction: nothing is lost, nothing is stuck. Several operations can be made one, see "Groups".
 *
 *     netshm_object *object;
 *     netshm_hashtbl *table;
 *     char value[64];
 *     size_t length;
 *
 *     netshm_open(NETSHM_POSIX, "/tmp/sample", "/sample", NETSHM_RDWR | NETSHM_CREAT, 0600, &object);
 *     netshm_hashtbl_manage(object, NULL, NULL, NULL, &table);
 *     netshm_hashtbl_replace(table, "key", 3, "value", 5);
 *     netshm_hashtbl_find(table, "key", 3, value, sizeof value, &length);
 *     netshm_hashtbl_close(table);
 *     netshm_close(object);
 *
 * Every call can fail, and a program has to look. A whole program is in examples_c/hello.c; it is built with
 * `cc hello.c $(pkg-config --cflags --libs netshm)`.
 *
 * Rules that hold for everything below
 *
 * Results.    An int that a function returns as its result is NETSHM_OK, which is 0, or a negative code, never
 *             positive. Codes keep their numbers for ever; later versions may return codes that this header does
 *             not list. netshm_strerror() has a text for every code, netshm_last_error() the details of this
 *             thread's last failure.
 * Outputs.    They are written only if the call succeeds; where it is different, the function says so. A pointer
 *             for an output may be NULL only where it is said. A failed call has changed nothing in the object.
 * Bytes.      Keys and values are any bytes, 0 to 2^40 of them; a longer one gives NETSHM_E_TOO_LARGE before a byte of
 *             it is read. NULL with length 0 is an empty key or value. The bytes must not change during the call.
 * Names.      File and memory names are bytes as the system takes them, NUL-terminated.
 * Ownership.  What comes as `T **out` where T is a handle (netshm_object, netshm_hashtbl, netshm_table, netshm_array,
 *             netshm_type, netshm_result, netshm_txn, netshm_cursor, netshm_pmanage) is ended by the function that
 *             its type names. Other blocks are freed by one
 *             netshm_free(). `const T **` is borrowed. Inputs are copied; nothing is kept by reference. No
 *             pointer into shared memory ever leaves the library.
 * Handles.    Each is a reference of its own: a table stays usable when its object's handle is closed, a cursor
 *             when its table's is, whatever the order. Closing NULL is OK. Use of a closed handle gives
 *             NETSHM_E_CLOSED as long as this can be told (its memory is kept for a while), a handle of another
 *             type NETSHM_E_INVALID; do not rely on it.
 * Threads.    All threads may use all handles at once, except that a cursor or a result is used by one thread at a time, that
 *             a group belongs to the thread that has begun or attached it, and that nobody may use a handle while
 *             it is being closed. A thread must not be cancelled (pthread_cancel) inside of a call.
 * Processes.  The same object may be opened by any number of processes, and several times in one.
 * Fork.       A forked child may go on using objects, tables and cursors. A group stays the parent's: in the
 *             child all calls on the object, on the thread that has the group, and with the group's handle, give
 *             NETSHM_E_FORKED, until the child has ended the handle, which only frees it. If the parent has several
 *             threads, the child may do only what is safe after a fork (see fork(2)) in any case; malloc is used
 *             here. An object on which another thread has a group open at the moment of the fork stays mapped in
 *             the child until the child ends or runs another program, also when all its handles are closed. A child
 *             of vfork must not call anything.
 * Signals.    Nothing may be called from a signal handler. No signal is used, unless you ask for it, see
 *             netshm_guard_sigbus(), and none blocked, but that a thread in netshm_hashtbl_wait() handles its signals
 *             while it sleeps. When the memory device is full, an error comes instead of SIGBUS, with one exception: a
 *             thread that stands still for more than ten seconds in the middle of a lookup (stopped by SIGSTOP, a
 *             debugger, or the system), while what it reads is removed, its memory given back to the system, and the
 *             device filled, may get SIGBUS when it goes on. See netshm_guard_sigbus() for that, too.
 * Outsiders.  Whoever may write an object's memory can destroy what is in it. If the file is made shorter while it is
 *             mapped, which no call of this library does, the kernel answers the next access to what is gone by
 *             SIGBUS, as with all mapped files. What protects: permissions, as only those who may write the file
 *             can shorten it; NETSHM_ANON, whose memory is sealed against it, also for its owner; and, against
 *             accidents only, NETSHM_POSIX, whose memory does not lie where programs write files. After
 *             netshm_guard_sigbus() there is an error instead of SIGBUS.
 * Callbacks.  They run on the calling thread, before the call returns. They must return: what leaves one by
 *             a C++ exception, or ends its thread, ends the process (SIGABRT); longjmp out of one is undefined,
 *             and so is leaving one on another stack, or two of one thread in another order than they were entered.
 *             Their answer 0 is the harmless one (stop, keep, roll back), and so is every unknown answer. A
 *             negative answer makes the call fail: with that number, if it is one of the codes below or is -1000 or
 *             less (those are yours, see NETSHM_E_CALLER); with NETSHM_E_CALLBACK, if it is between. Where a
 *             language's own glue swallows an exception of a callback, what it answers then may be anything
 *             (CPython's ctypes: also NETSHM_COMMIT): catch all exceptions inside of the callback and answer a
 *             negative number.
 * Structures. Those that may grow begin with their size, which the caller sets.
 * errno.      It is unspecified after every call.
 * Unloading.  After dlclose the library stays loaded.
 * Valgrind.   A program that ends with open tables under valgrind needs --leak-check=no: its search for leaks would
 *             look through all of the address space that is reserved for the growth of objects.
 */

#ifndef NETSHM_H
#define NETSHM_H

#include <stddef.h>
#include <stdint.h>

/** @name Version of this header. @{ */
#define NETSHM_VERSION_MAJOR 0
#define NETSHM_VERSION_MINOR 1
#define NETSHM_VERSION_PATCH 0
#define NETSHM_VERSION_NUMBER (NETSHM_VERSION_MAJOR << 16 | NETSHM_VERSION_MINOR << 8 | NETSHM_VERSION_PATCH)
#define NETSHM_VERSION_STRING "0.1.0"
/** @} */

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Errors, versions, memory ---------------------------------------------------------------------------- */

/** Success. */
#define NETSHM_OK 0
/** There is no such key, name or object; or a cursor is at the end. */
#define NETSHM_E_NOT_FOUND (-1)
/** The key, or the name, is there already. */
#define NETSHM_E_EXISTS (-2)
/** The caller's buffer is too small; the length needed has been written. */
#define NETSHM_E_TOO_SMALL (-3)
/** The value is not the expected one any more. */
#define NETSHM_E_CHANGED (-4)
/** An argument is not acceptable; `argument` of #netshm_error says which. */
#define NETSHM_E_INVALID (-5)
/** The types asked for, or the value found, are not of the type needed. */
#define NETSHM_E_TYPE (-6)
/** The locking method asked for is not the one that the object records. */
#define NETSHM_E_LOCKING (-7)
/** It is another kind of object, or the management file names another one. */
#define NETSHM_E_KIND (-8)
/** Groups wait for each other, and this one gives way: end it, or begin it again. */
#define NETSHM_E_DEADLOCK (-9)
/** The lock time-out has passed; `holder_pid` of #netshm_error says who holds the lock, if it is known. */
#define NETSHM_E_TIMEOUT (-10)
/** The group was rolled back because its callback wanted it, or because the enclosing group has ended. */
#define NETSHM_E_ABORTED (-11)
/** Not possible inside of a group; or the group is not this thread's. */
#define NETSHM_E_IN_GROUP (-12)
/** Not allowed in the callback that makes this call. */
#define NETSHM_E_IN_CALLBACK (-13)
/** A callback gave an answer that it may not give. */
#define NETSHM_E_CALLBACK (-14)
/** An index is out of range. */
#define NETSHM_E_RANGE (-15)
/** The result does not fit into the integer; nothing was changed. */
#define NETSHM_E_OVERFLOW (-16)
/** Larger than this process, or the format, can handle. */
#define NETSHM_E_TOO_LARGE (-17)
/** The object's bytes contradict the format; `offset` of #netshm_error says where. */
#define NETSHM_E_CORRUPT (-18)
/** The object was made by a newer library, which this one does not understand. */
#define NETSHM_E_NEWER (-19)
/** The memory device, the file system, or the object's maximum size is exhausted; nothing was lost. */
#define NETSHM_E_NO_SPACE (-20)
/** This process is out of memory or address space. */
#define NETSHM_E_NO_MEMORY (-21)
/** The operating system denies access. */
#define NETSHM_E_PERMISSION (-22)
/** The object, or its file system, is for reading only. */
#define NETSHM_E_READ_ONLY (-23)
/** The handle is closed. */
#define NETSHM_E_CLOSED (-24)
/** The group was begun by the parent process, before the fork; only the parent can end it. */
#define NETSHM_E_FORKED (-25)
/** The object was re-initialised as something else, or the table dropped; it lasts until there is such a table again. */
#define NETSHM_E_STALE (-26)
/** Too many participants, or too many changes meanwhile; or the handle is in use by another thread. */
#define NETSHM_E_BUSY (-27)
/** A signal ended the wait. */
#define NETSHM_E_INTERRUPTED (-28)
/** This system, file system or version does not support it. */
#define NETSHM_E_UNSUPPORTED (-29)
/** A system call failed; `sys_errno` of #netshm_error says how. */
#define NETSHM_E_SYSTEM (-30)
/** A bug in the library was caught; the object is consistent. Please report it. */
#define NETSHM_E_PANIC (-31)

/**
 * Numbers from this one downwards are the callbacks' own: a call whose callback answers with one of them
 * returns it as it is.
 */
#define NETSHM_E_CALLER (-1000)

/**
 * What is known about a failure. Fields that do not apply are 0, `offset` is -1.
 *
 * Set `size` to `sizeof(netshm_error)` before the call; the structure may grow at its end, and a program
 * compiled against an older header gets what it knows.
 */
typedef struct netshm_error {
    /** Size of this structure in bytes, set by the caller. */
    size_t size;
    /** The code that the call returned. */
    int code;
    /** The system's error number, with #NETSHM_E_SYSTEM. */
    int sys_errno;
    /** Number of the argument that is wrong, the first being 1, with #NETSHM_E_INVALID. */
    int argument;
    /** 0. */
    int reserved;
    /**
     * Byte offset of the damage in the object, with #NETSHM_E_CORRUPT; in the value, if a typed one does not
     * decode; of the bad line in a list of persistent objects; in the signature, with #NETSHM_E_INVALID from
     * a call that takes
     * one.
     */
    int64_t offset;
    /** Process that holds the lock, with #NETSHM_E_TIMEOUT; 0 if it is not known. */
    int64_t holder_pid;
    /** One sentence for humans, NUL-terminated, cut off if it is longer. */
    char text[232];
} netshm_error;

/**
 * Tells more about the last failure of a call of this thread.
 *
 * The codes #NETSHM_E_NOT_FOUND, #NETSHM_E_EXISTS, #NETSHM_E_TOO_SMALL and #NETSHM_E_CHANGED are everyday
 * answers: they leave no detail, and the detail of an earlier failure is kept. So compare `code` with what the
 * call returned. Successful calls change nothing here, and neither does this one.
 *
 * @param out  Receives a copy; its field `size` must have been set.
 *
 * @return NETSHM_OK, also if nothing has failed yet (`code` is 0 then);
 *         NETSHM_E_INVALID, `out` is NULL or its `size` is impossible.
 */
int netshm_last_error(netshm_error *out);

/**
 * A short text for a code.
 *
 * @param code  Any integer.
 *
 * @return A static, NUL-terminated text; never NULL.
 */
const char *netshm_strerror(int code);

/**
 * Frees a block that a function gave as `T **out` and that is not a handle.
 *
 * @param block  The block, or NULL.
 */
void netshm_free(void *block);

/**
 * The version of the library at run time, to be compared with #NETSHM_VERSION_NUMBER.
 *
 * @return `major << 16 | minor << 8 | patch`.
 */
uint32_t netshm_version(void);

/**
 * The version of the library at run time, as text.
 *
 * @return A static text such as "0.1.0".
 */
const char *netshm_version_string(void);

/* ---- Objects --------------------------------------------------------------------------------------------- */

/** Kind of object: POSIX shared memory, with a small management file by which it can be found and removed. */
#define NETSHM_POSIX 1
/** Kind of object: a file that holds the data. */
#define NETSHM_FILE 2

/**
 * Kind of object: memory without a name, which goes with its last descriptor and mapping. Others get it as a
 * descriptor, see netshm_fd() and netshm_open_fd(). Nobody can shorten it.
 */
#define NETSHM_ANON 3
/** Open for reading only: the memory is mapped read-only and never written. */
#define NETSHM_RDONLY 1
/** Open for reading and writing. */
#define NETSHM_RDWR 2
/** Create the object if it does not exist. */
#define NETSHM_CREAT 4
/** With #NETSHM_CREAT: fail with #NETSHM_E_EXISTS if the object exists. */
#define NETSHM_EXCL 8
/** Empty the object, in one transaction. */
#define NETSHM_TRUNC 16

/** An open shared memory object. Closed by netshm_close(). */
typedef struct netshm_object netshm_object;

/**
 * Opens, or creates, a shared memory object.
 *
 * A new object is empty until it is managed, see netshm_hashtbl_manage(). The same object may be opened several
 * times in one process.
 *
 * @param kind       #NETSHM_POSIX, #NETSHM_FILE, or #NETSHM_ANON, which is always made anew.
 * @param file_name  NETSHM_POSIX: the management file, usually in /tmp. It is created if it is missing, and gets
 *                   the line `R POSIX_SHM "<mem_name>"`. NETSHM_FILE: the file that holds the data.
 *                   NETSHM_ANON: NULL.
 * @param mem_name   NETSHM_POSIX: the memory's name, which begins with a slash and contains no other.
 *                   NETSHM_FILE, NETSHM_ANON: NULL.
 * @param flags      Either #NETSHM_RDONLY or #NETSHM_RDWR, and any of #NETSHM_CREAT, #NETSHM_EXCL,
 *                   #NETSHM_TRUNC. The last three need NETSHM_RDWR. NETSHM_ANON needs NETSHM_RDWR and NETSHM_CREAT.
 * @param mode       Permissions of a new object, as for open(2), for example 0600. The umask is honoured.
 *                   NETSHM_ANON: without effect.
 * @param out        Receives the handle.
 *
 * @return NETSHM_OK; NETSHM_E_NOT_FOUND, there is none, and NETSHM_CREAT was not given; NETSHM_E_EXISTS, with
 *         NETSHM_EXCL; NETSHM_E_PERMISSION; NETSHM_E_KIND, the management file is about another memory object;
 *         NETSHM_E_CORRUPT and NETSHM_E_NEWER, the memory holds something else, or its end was cut off (the error's
 *         text says "truncated file"), and is left as it is;
 *         NETSHM_E_UNSUPPORTED, on network file systems; with NETSHM_TRUNC also NETSHM_E_IN_GROUP, this thread has a group
 *         on the object open, NETSHM_E_IN_CALLBACK, from an update of it, and NETSHM_E_FORKED, in a child whose parent has a
 *         group open; NETSHM_E_INVALID, NETSHM_E_NO_MEMORY, NETSHM_E_NO_SPACE, NETSHM_E_SYSTEM.
 */
int netshm_open(int kind,
                const char *file_name,
                const char *mem_name,
                uint32_t flags,
                uint32_t mode,
                netshm_object **out);

/**
 * Opens the object that a descriptor refers to: one that was inherited, or came over a Unix socket (SCM_RIGHTS).
 *
 * The descriptor is duplicated and stays the caller's. The object is the same one as that of other handles, in this
 * process or in others. It has no name here, whatever it has elsewhere, so that a process which closes descriptors
 * that are not its own can go on with it only as long as it needs no descriptor; then it gets #NETSHM_E_CLOSED.
 *
 * @param fd     A descriptor of an object's memory, open for reading or for both.
 * @param flags  Either #NETSHM_RDONLY or #NETSHM_RDWR; with the latter, perhaps #NETSHM_TRUNC.
 * @param out    Receives the handle.
 *
 * @return NETSHM_OK; NETSHM_E_READ_ONLY, NETSHM_RDWR with a descriptor for reading only; NETSHM_E_INVALID, it is no
 *         descriptor of a regular file that can be mapped; else the codes of netshm_open().
 */
int netshm_open_fd(int fd,
                   uint32_t flags,
                   netshm_object **out);

/**
 * Creates an object under a new name.
 *
 * Every `X` of the patterns becomes a random character of 0-9A-Z until the name is new; netshm_name() tells it.
 *
 * @param kind      #NETSHM_POSIX or #NETSHM_FILE.
 * @param file_pat  Pattern of the file name, for example "/tmp/sessions.XXXXXX".
 * @param mem_pat   NETSHM_POSIX: pattern of the memory's name, for example "/sessions.XXXXXX". NETSHM_FILE: NULL.
 * @param mode      Permissions, as for netshm_open().
 * @param out       Receives the handle, open for reading and writing.
 *
 * @return NETSHM_OK; NETSHM_E_EXISTS, 1,000 attempts met names in use; else the codes of netshm_open().
 */
int netshm_create_unique(int kind,
                         const char *file_pat,
                         const char *mem_pat,
                         uint32_t mode,
                         netshm_object **out);

/**
 * Tells an object's kind and name.
 *
 * @param o          The object.
 * @param kind       Receives the kind; may be NULL.
 * @param file_name  Receives the file name, NULL if there is none; may be NULL.
 * @param mem_name   Receives the memory's name, NULL if there is none; may be NULL.
 *
 * The strings belong to the handle and live until it is closed.
 *
 * @return NETSHM_OK, NETSHM_E_INVALID, NETSHM_E_CLOSED.
 */
int netshm_name(netshm_object *o, int *kind, const char **file_name, const char **mem_name);

/**
 * Gives the descriptor of an object's memory.
 *
 * It is borrowed: it may be duplicated and passed on; it must not be closed, written to, or truncated. It is closed
 * by exec: a program that is to get it by inheritance needs a duplicate.
 *
 * @param o   The object.
 * @param fd  Receives the descriptor, which lives as long as the object is used in this process.
 *
 * @return NETSHM_OK, NETSHM_E_INVALID, NETSHM_E_CLOSED.
 */
int netshm_fd(netshm_object *o,
              int *fd);

/**
 * Removes an object's name or names. The memory goes when nobody uses it any more.
 *
 * @param kind       #NETSHM_POSIX or #NETSHM_FILE.
 * @param file_name  As for netshm_open(). The management file is removed as well.
 * @param mem_name   As for netshm_open().
 *
 * @return NETSHM_OK; NETSHM_E_NOT_FOUND; NETSHM_E_PERMISSION; NETSHM_E_INVALID; NETSHM_E_SYSTEM.
 */
int netshm_unlink(int kind, const char *file_name, const char *mem_name);

/**
 * Changes the permissions of all files behind an object.
 *
 * @param o     The object.
 * @param mode  Permissions, for example 0660.
 *
 * @return NETSHM_OK, NETSHM_E_PERMISSION, NETSHM_E_INVALID, NETSHM_E_CLOSED, NETSHM_E_SYSTEM.
 */
int netshm_chmod(netshm_object *o, uint32_t mode);

/**
 * Changes the owner and the group of all files behind an object.
 *
 * @param o    The object.
 * @param uid  The user, or (uint32_t)-1 to leave it as it is.
 * @param gid  The group, or (uint32_t)-1 to leave it as it is.
 *
 * @return NETSHM_OK, NETSHM_E_PERMISSION, NETSHM_E_INVALID, NETSHM_E_CLOSED, NETSHM_E_SYSTEM.
 */
int netshm_chown(netshm_object *o, uint32_t uid, uint32_t gid);

/**
 * Writes all that has been stored to the device of an object's file, at a moment at which no operation and no group is
 * half done, and waits until it is there.
 *
 * If the machine goes down before anything is changed again, the object is exactly as it was at that moment, and is used
 * like one that was closed in order. If it goes down after further changes, some of these are on the device and
 * others are not: every use of the object then fails with #NETSHM_E_CORRUPT, #NETSHM_DAMAGE_UNCLEAN, until
 * netshm_check() has found it sound; see there. A process that is killed needs no sync: nothing is lost by that.
 *
 * Writers are kept out while that part is written which a first pass, during which they go on, has left. Readers are
 * not. POSIX shared memory and memory without a name have no device: it costs little and gains nothing.
 *
 * @param o           The object, open for writing.
 * @param timeout_ms  Longest wait for groups that are open, in milliseconds. 0: no limit; negative: no waiting.
 *
 * @return NETSHM_OK; NETSHM_E_TIMEOUT; NETSHM_E_DEADLOCK, only where somebody damages the object; NETSHM_E_IN_GROUP,
 *         this thread has a group open; NETSHM_E_IN_CALLBACK, from an update of the same object; NETSHM_E_FORKED, in a child whose parent has a group open; NETSHM_E_READ_ONLY;
 *         NETSHM_E_SYSTEM and NETSHM_E_NO_SPACE, the device does not take it, and what is on it is not known: make a
 *         backup elsewhere; NETSHM_E_CORRUPT; NETSHM_E_INVALID; NETSHM_E_CLOSED.
 */
int netshm_sync(netshm_object *o,
                int32_t timeout_ms);

/**
 * Closes an object's handle. The object goes on existing, and tables made from it stay usable.
 *
 * @param o  The handle; NULL is OK.
 *
 * @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type.
 */
int netshm_close(netshm_object *o);

/**
 * Installs a handler for SIGBUS, by which this process outlives that somebody shortens the file of an object that it has
 * mapped, or that a device cannot give back a page. Without it the system kills the process in such a case: whoever may
 * write to the file of a #NETSHM_FILE or #NETSHM_POSIX object can do that to all who use it. Memory of
 * #NETSHM_ANON objects cannot be shortened by anybody, and needs no guard.
 *
 * Where a page is gone the handler puts an empty, private one, and from then on all calls on the object, by all of its handles
 * in this process, fail with NETSHM_E_CORRUPT, the place being the length that is left. Calls under way, groups that are open,
 * and values that they give, may have any outcome; nothing that they store is kept. The handles are closed as usual.
 * Opening the object again gives a new handle, if the file is an object again.
 *
 * That is also what happens to a thread that has stood still in the middle of a lookup until its memory was given back and the
 * device full, see "Signals" above. Nothing in the object is damaged then, though the code is NETSHM_E_CORRUPT and the place the
 * object's whole length. The call under way gives the right answer, or this error. Close all old handles, open the
 * object again, and go on. Other processes notice nothing, unless other threads of this one were changing something:
 * what these had locked stays locked until the old handles are closed, and all who change anything may have to wait for that.
 * So a thread that opens the object first should have a time-out: it may wait for what its own process has left.
 *
 * The handler uses system calls and atomics alone, and returns: it jumps nowhere. A SIGBUS that does not concern an
 * object, or that was sent by kill(2), goes to the handler that was there before, or does what it did by default. Call this
 * after other handlers for SIGBUS have been installed; who installs one later should pass on what is not his. The handler stays
 * for good: the library is never unloaded. Calling again does nothing, unless another handler has been installed meanwhile.
 * At most 2048 mappings are guarded: one for each object, and some more for one that has outgrown its reservation.
 *
 * @return NETSHM_OK; NETSHM_E_SYSTEM, sigaction(2) has failed.
 */
int netshm_guard_sigbus(void);

/**
 * Tells which kinds of objects can be made here; containers may lack POSIX shared memory.
 *
 * @return A set of bits: `1 << kind` for each kind.
 */
uint32_t netshm_supported_kinds(void);

/**
 * Tells the best locking method for a kind of object, which is that of a new one if none is asked for. The system call
 * for #NETSHM_LOCK_FUTEX is tried once in each process; sandboxes may deny it.
 *
 * @param kind  The kind.
 *
 * @return #NETSHM_LOCK_FUTEX; #NETSHM_LOCK_RECORD where there are no futexes; NETSHM_E_INVALID for an unknown kind, without a detail.
 */
int netshm_best_locking(int kind);

/* ---- Options --------------------------------------------------------------------------------------------- */

/** Locking: the one that the object records; for a new object, the best one. */
#define NETSHM_LOCK_RECORDED 0
/** Locking: none. For one thread of one process, or readers only. Still safe against being killed. */
#define NETSHM_LOCK_NONE 1

/**
 * Locking: the same lock words as #NETSHM_LOCK_FUTEX, but no futex system call: for systems and sandboxes that do
 * not have it. Record locks of the file system tell who lives; whoever waits looks again every 50 us to 2 ms.
 */
#define NETSHM_LOCK_RECORD 2
/** Locking: lock words in the shared memory. No system call unless somebody has to wait. */
#define NETSHM_LOCK_FUTEX 3
/** Hashing of keys: as the object records; for a new object, #NETSHM_HASH_FAST. */
#define NETSHM_HASH_RECORDED 0
/** Hashing of keys: XXH3 with a random seed. */
#define NETSHM_HASH_FAST 1
/** Hashing of keys: SipHash with a random key, for keys that are chosen by enemies. */
#define NETSHM_HASH_KEYED 2

/**
 * Flag of managing: delete everything that the table holds, in one transaction; with the unnamed table, everything
 * that the object holds.
 */
#define NETSHM_REINIT 1

/**
 * Flag of managing: ask the system for huge pages for this process's view of the object. They save time in objects of
 * some hundred MiB and more, if they can be had; docs/tuning.md says when, and what they cost. It holds for all handles
 * of this process to the object, and is not recorded in it.
 */
#define NETSHM_HUGE_PAGES 2

/**
 * Flag of managing: a new object gets checksums of its keys and values. netshm_check() and netshm_salvage() verify them, and
 * so find damage that changes a value and nothing else; finds do not. Of 8 million such damages one goes unnoticed. Changes
 * take some times as long as without. It is recorded; an object that was made without is refused (#NETSHM_E_KIND).
 */
#define NETSHM_CHECKSUMS 4

/**
 * How an object is managed. Zero in all fields but `size` gives the defaults.
 *
 * Set all bytes to zero and `size` to `sizeof(netshm_options)`, or begin with #NETSHM_OPTIONS_INIT. The
 * structure may grow at its end; a library that does not know a field refuses it unless it is zero.
 */
typedef struct netshm_options {
    /** Size of this structure in bytes. */
    size_t size;
    /** 0, or #NETSHM_REINIT, #NETSHM_HUGE_PAGES and #NETSHM_CHECKSUMS, added up. */
    uint32_t flags;
    /** One of the NETSHM_LOCK_ numbers. For an existing object: what it is expected to record. */
    uint32_t locking;
    /** A hint, in bytes: at least 160 and divisible by 4. It is recorded and has no other effect. 0: 256. */
    uint32_t page_size;
    /**
     * Longest wait for a lock through the new handle, in milliseconds. 0: no limit; negative: no waiting. Until another
     * table is managed by the same handle of the object, netshm_check(), netshm_roots() and netshm_root_drop() wait as long
     * with that; before any is, they wait without a limit. A thread's first change may wait a second for a place among those who
     * take part, even with no waiting.
     */
    int32_t lock_timeout_ms;
    /** Number of keys for which a new table has room from the beginning. */
    uint64_t init;
    /** Size in bytes beyond which a new object does not grow. 0: no limit. */
    uint64_t max_bytes;
    /** Name of the table in the object, UTF-8 of 1 to 240 bytes; NULL: the unnamed table. */
    const char *root;
    /** One of the NETSHM_HASH_ numbers. */
    uint32_t hashing;
    /** Reserved: 0. */
    uint32_t reserved;
} netshm_options;

/**
 * Initial value of a #netshm_options: all defaults.
 */
#define NETSHM_OPTIONS_INIT { sizeof(netshm_options), 0, 0, 0, 0, 0, 0, NULL, 0, 0 }

/* ---- The tables of an object ----------------------------------------------------------------------------- */

/** Kind of table: hash table. */
#define NETSHM_TABLE_HASHTBL 1
/** Kind of table: array. */
#define NETSHM_TABLE_ARRAY 2
/** Kind of table: primitive table, 32-bit integers to arrays of 32-bit integers. */
#define NETSHM_TABLE_PRIMITIVE 3

/** A table of an object. */
typedef struct netshm_root_info {
    /** Its name; NULL for the unnamed table. */
    const char *name;
    /** Signature of the keys' type; empty for raw bytes. */
    const char *key_type;
    /** Signature of the values' type; empty for raw bytes. */
    const char *value_type;
    /** One of the NETSHM_TABLE_ numbers. */
    uint32_t kind;
    /** 0. */
    uint32_t reserved;
} netshm_root_info;

/**
 * Lists the tables of an object, the unnamed one first.
 *
 * @param o    The object.
 * @param out  Receives an array in one block with all its strings, to be freed by netshm_free(); NULL if there are none.
 * @param n    Receives the number of tables.
 *
 * @return NETSHM_OK; NETSHM_E_CORRUPT; NETSHM_E_TIMEOUT, a dead writer is in the way of a read-only handle, or
 *         somebody has been making or removing a table for longer than the netshm_options.lock_timeout_ms that was given
 *         last with this handle of the object; NETSHM_E_BUSY, the tables changed each time they were read;
 *         NETSHM_E_NO_MEMORY; NETSHM_E_INVALID; NETSHM_E_CLOSED.
 */
int netshm_roots(netshm_object *o,
                 netshm_root_info **out,
                 size_t *n);

/**
 * Removes a named table with all that it holds, in one transaction. Its handles give NETSHM_E_STALE until a table of
 * the same name, kind and types is there again, which they then are of.
 *
 * @param o     The object, open for writing.
 * @param name  The name of the table.
 *
 * @return NETSHM_OK; NETSHM_E_NOT_FOUND; NETSHM_E_IN_GROUP; NETSHM_E_IN_CALLBACK, from an update of the same object;
 *         NETSHM_E_FORKED, in a child whose parent has a group open; NETSHM_E_READ_ONLY; NETSHM_E_TIMEOUT,
 *         groups are open for longer than the netshm_options.lock_timeout_ms that was given last with this handle of the
 *         object; NETSHM_E_DEADLOCK, only where somebody damages the object; NETSHM_E_CORRUPT; NETSHM_E_NO_SPACE;
 *         NETSHM_E_NO_MEMORY; NETSHM_E_SYSTEM; NETSHM_E_BUSY; NETSHM_E_INVALID; NETSHM_E_CLOSED.
 */
int netshm_root_drop(netshm_object *o,
                     const char *name);

/* ---- Hash tables ----------------------------------------------------------------------------------------- */

/** A hash table in an object. Closed by netshm_hashtbl_close(). */
typedef struct netshm_hashtbl netshm_hashtbl;

/**
 * Any managed table: what groups are about. Borrowed from its hash table and never closed; or a primitive table from
 * netshm_table_manage(), closed by netshm_table_close().
 */
typedef struct netshm_table netshm_table;

/** The type of keys or values: immutable. See "Types". Closed by netshm_type_close(). */
typedef struct netshm_type netshm_type;

/**
 * Views an object as a hash table. An empty object becomes one.
 *
 * Two processes that do this at the same moment with a new object both get the one table.
 *
 * @param o        The object. Its handle may be closed afterwards.
 * @param key      The type of the keys, which is recorded in a new table and compared with what an existing one
 *                 records. NULL: raw bytes for a new table, whatever is recorded for an existing one.
 * @param val      The same for the values.
 * @param options  How; NULL gives the defaults.
 * @param out      Receives the handle.
 *
 * @return NETSHM_OK; NETSHM_E_TYPE, other types are recorded: the text names both; NETSHM_E_LOCKING, another
 *         method is recorded; NETSHM_E_READ_ONLY, an empty object is open for
 *         reading only; NETSHM_E_CORRUPT; NETSHM_E_KIND, the object holds something else;
 *         NETSHM_E_UNSUPPORTED, something reserved was asked for; NETSHM_E_IN_GROUP, NETSHM_E_IN_CALLBACK and
 *         NETSHM_E_FORKED, where a table would have to be made or re-initialised: this thread has a group on the object
 *         open, an update of it under way, or its parent's group; NETSHM_E_TIMEOUT; NETSHM_E_DEADLOCK,
 *         only where somebody damages the object; NETSHM_E_NO_SPACE, NETSHM_E_NO_MEMORY, NETSHM_E_BUSY, NETSHM_E_INVALID,
 *         NETSHM_E_CLOSED, NETSHM_E_SYSTEM.
 */
int netshm_hashtbl_manage(netshm_object *o,
                          netshm_type *key,
                          netshm_type *val,
                          const netshm_options *options,
                          netshm_hashtbl **out);

/**
 * Gives the underlying table, which is what groups are about.
 *
 * @param t  The hash table.
 *
 * @return The table, which is borrowed and ends with `t`; NULL if `t` is NULL, closed or of another type.
 */
netshm_table *netshm_hashtbl_table(netshm_hashtbl *t);

/**
 * Closes a hash table's handle. Open cursors and groups stay usable.
 *
 * @param t  The handle; NULL is OK.
 *
 * @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type.
 */
int netshm_hashtbl_close(netshm_hashtbl *t);

/**
 * Puts a binding on top of those that the key has. They are hidden, not removed.
 *
 * @param t        The table; safe to use from several threads.
 * @param key      The key; may be NULL only if key_len is 0.
 * @param key_len  Its length in bytes.
 * @param val      The value; may be NULL only if val_len is 0.
 * @param val_len  Its length in bytes.
 *
 * @return NETSHM_OK; NETSHM_E_NO_SPACE; NETSHM_E_TOO_LARGE; NETSHM_E_TIMEOUT; NETSHM_E_READ_ONLY; NETSHM_E_STALE;
 *         NETSHM_E_DEADLOCK, in a group; NETSHM_E_IN_CALLBACK, from an update of the same object;
 *         NETSHM_E_FORKED, in a child whose parent has a group open; NETSHM_E_NO_MEMORY, NETSHM_E_BUSY,
 *         NETSHM_E_CORRUPT, NETSHM_E_INVALID, NETSHM_E_CLOSED, NETSHM_E_SYSTEM. Nothing has changed then.
 */
int netshm_hashtbl_add(netshm_hashtbl *t,
                       const void *key,
                       size_t key_len,
                       const void *val,
                       size_t val_len);

/**
 * Replaces the newest binding of the key, or adds one if there is none.
 *
 * Parameters and return codes are those of netshm_hashtbl_add().
 */
int netshm_hashtbl_replace(netshm_hashtbl *t,
                           const void *key,
                           size_t key_len,
                           const void *val,
                           size_t val_len);

/**
 * Binds a key that has no binding yet.
 *
 * Parameters as for netshm_hashtbl_add().
 *
 * @return NETSHM_OK; NETSHM_E_EXISTS, the key has a binding; else the codes of netshm_hashtbl_add().
 */
int netshm_hashtbl_insert(netshm_hashtbl *t,
                          const void *key,
                          size_t key_len,
                          const void *val,
                          size_t val_len);

/**
 * Removes the newest binding of the key, so that the one before it shows again.
 *
 * @param t          The table.
 * @param key        The key; may be NULL only if key_len is 0.
 * @param key_len    Its length in bytes.
 * @param was_there  Receives 1 if there was a binding, 0 if not; may be NULL.
 *
 * @return NETSHM_OK, also if there was none; else the codes of netshm_hashtbl_add().
 */
int netshm_hashtbl_remove(netshm_hashtbl *t, const void *key, size_t key_len, int *was_there);

/**
 * Adds to the integer that is bound to a key, atomically. The value is 8 bytes, little-endian.
 *
 * @param t        The table.
 * @param key      The key; may be NULL only if key_len is 0.
 * @param key_len  Its length in bytes.
 * @param delta    What to add; may be negative.
 * @param initial  What a key without binding counts from: it gets initial + delta.
 * @param now      Receives the sum; may be NULL.
 *
 * @return NETSHM_OK; NETSHM_E_OVERFLOW; NETSHM_E_TYPE, the value is not of 8 bytes; else the codes of
 *         netshm_hashtbl_add(). Nothing has changed then.
 */
int netshm_hashtbl_incr(netshm_hashtbl *t,
                        const void *key,
                        size_t key_len,
                        int64_t delta,
                        int64_t initial,
                        int64_t *now);

/**
 * Replaces the newest binding of a key if it equals the expected value ("compare and swap").
 *
 * @param t        The table.
 * @param key      The key; may be NULL only if key_len is 0.
 * @param key_len  Its length in bytes.
 * @param old      The expected value; may be NULL only if old_len is 0.
 * @param old_len  Its length in bytes.
 * @param val      The new value; may be NULL only if val_len is 0.
 * @param val_len  Its length in bytes.
 *
 * @return NETSHM_OK; NETSHM_E_CHANGED, it is another value; NETSHM_E_NOT_FOUND, there is none; else the codes of
 *         netshm_hashtbl_add().
 */
int netshm_hashtbl_cas(netshm_hashtbl *t,
                       const void *key,
                       size_t key_len,
                       const void *old,
                       size_t old_len,
                       const void *val,
                       size_t val_len);

/** Bytes somewhere. */
typedef struct netshm_slice {
    /** The first byte. */
    const void *data;
    /** Their number. */
    size_t len;
} netshm_slice;

/**
 * Copies the newest binding of a key into the caller's buffer.
 *
 * This takes no lock and makes no system call, unless a process has died in the middle of a change.
 *
 * @param t        The table; safe to use from several threads.
 * @param key      The key; may be NULL only if key_len is 0. It must not overlap with buf.
 * @param key_len  Its length in bytes.
 * @param buf      Receives the value; may be NULL only if cap is 0. What it holds after any other code than
 *                 NETSHM_OK, and behind the value, is unspecified.
 * @param cap      Size of buf in bytes.
 * @param len      Receives the value's full length in bytes, also with NETSHM_E_TOO_SMALL.
 *
 * @return NETSHM_OK; NETSHM_E_NOT_FOUND, the key has no binding; NETSHM_E_TOO_SMALL, *len bytes are needed;
 *         NETSHM_E_TOO_LARGE, the key is longer than any; NETSHM_E_CORRUPT; NETSHM_E_TIMEOUT, the way was blocked by a
 *         writer; NETSHM_E_BUSY; NETSHM_E_STALE;
 *         NETSHM_E_DEADLOCK, NETSHM_E_IN_CALLBACK and NETSHM_E_FORKED as for netshm_hashtbl_add();
 *         NETSHM_E_INVALID, NETSHM_E_CLOSED.
 */
int netshm_hashtbl_find(netshm_hashtbl *t,
                        const void *key,
                        size_t key_len,
                        void *buf,
                        size_t cap,
                        size_t *len);

/**
 * Gives a copy of the newest binding of a key.
 *
 * @param t        The table.
 * @param key      The key; may be NULL only if key_len is 0.
 * @param key_len  Its length in bytes.
 * @param val      Receives the copy, never NULL, to be freed by netshm_free().
 * @param len      Receives its length in bytes.
 *
 * @return NETSHM_OK; NETSHM_E_NOT_FOUND; NETSHM_E_NO_MEMORY; else the codes of netshm_hashtbl_find().
 */
int netshm_hashtbl_get(netshm_hashtbl *t, const void *key, size_t key_len, void **val, size_t *len);

/**
 * Gives copies of all bindings of a key, newest first.
 *
 * @param t        The table.
 * @param key      The key; may be NULL only if key_len is 0.
 * @param key_len  Its length in bytes.
 * @param vals     Receives an array of n values, in one block with what they point to, to be freed by one
 *                 netshm_free(). NULL if there is none.
 * @param n        Receives the number of values.
 *
 * @return NETSHM_OK, also if there is none; NETSHM_E_NO_MEMORY; else the codes of netshm_hashtbl_find().
 */
int netshm_hashtbl_find_all(netshm_hashtbl *t,
                            const void *key,
                            size_t key_len,
                            netshm_slice **vals,
                            size_t *n);

/**
 * Tells whether a key has a binding.
 *
 * @param t        The table.
 * @param key      The key; may be NULL only if key_len is 0.
 * @param key_len  Its length in bytes.
 * @param found    Receives 1 if it has one, 0 if not.
 *
 * @return NETSHM_OK; else the codes of netshm_hashtbl_find().
 */
int netshm_hashtbl_mem(netshm_hashtbl *t, const void *key, size_t key_len, int *found);

/**
 * Counts all bindings, hidden ones included. In a group it counts what the group sees, and keeps all other
 * writers out until the group ends.
 *
 * @param t  The table.
 * @param n  Receives the number.
 *
 * @return NETSHM_OK; NETSHM_E_BUSY, a table open for reading only changed all the time; else the codes of
 *         netshm_hashtbl_find().
 */
int netshm_hashtbl_length(netshm_hashtbl *t, uint64_t *n);

/* ---- Several keys in one call ---------------------------------------------------------------------------- */

/**
 * Gives copies of the newest bindings of several keys.
 *
 * This is n times netshm_hashtbl_get() in a fraction of the time: while the memory of one key is waited for, that of
 * others is on its way. Each key is read at a moment of its own; where all are to be read at one moment, call this in a
 * group. A key may occur more than once. netshm_hashtbl_find_many_into() needs no memory, and is faster.
 *
 * @param t     The table; safe to use from several threads.
 * @param keys  The keys; may be NULL only if n is 0.
 * @param n     Their number.
 * @param vals  Receives an array of n values, in the order of the keys, in one block with what they point to, to be freed by
 *              one netshm_free(). A key without binding has data NULL; an empty value has not. NULL if n is 0.
 *
 * @return NETSHM_OK, also if keys have no binding; NETSHM_E_NO_MEMORY; else the codes of netshm_hashtbl_find().
 */
int netshm_hashtbl_find_many(netshm_hashtbl *t,
                             const netshm_slice *keys,
                             size_t n,
                             netshm_slice **vals);

/**
 * Copies the newest bindings of several keys into one buffer of the caller's.
 *
 * This is n times netshm_hashtbl_find() in a fraction of the time, see netshm_hashtbl_find_many(). It takes no
 * memory.
 *
 * @param t       The table; safe to use from several threads.
 * @param keys    The keys; may be NULL only if n is 0. They must not overlap with buf or lens.
 * @param n       Their number.
 * @param buf     n * stride bytes; the value of keys[i] goes to byte i * stride. May be NULL only if that is 0. What the buffer
 *                holds besides is unspecified.
 * @param stride  Bytes for each value.
 * @param lens    Receives n lengths: for each key the full length of its value in bytes, or #NETSHM_E_NOT_FOUND if it
 *                has no binding. May be NULL only if n is 0.
 *
 * @return NETSHM_OK, also if keys have no binding; NETSHM_E_TOO_SMALL, some lengths are greater than stride: these
 *         values are not there, all others are, and all of lens; else the codes of netshm_hashtbl_find(), and buf and lens
 *         hold anything then.
 */
int netshm_hashtbl_find_many_into(netshm_hashtbl *t,
                                  const netshm_slice *keys,
                                  size_t n,
                                  void *buf,
                                  size_t stride,
                                  int64_t *lens);

/**
 * Replaces the newest bindings of several keys, or adds one to those that have none.
 *
 * This is n times netshm_hashtbl_replace() in the order of the keys, in less time: while the memory of one key is
 * waited for, that of others is on its way. Each is a change of its own: others may see some of them before the rest, and if
 * the process is killed, the first ones are done, up to any of them, and the rest is not. Where all are to become one
 * change, call this in a group.
 *
 * @param t     The table; safe to use from several threads.
 * @param keys  The keys; may be NULL only if n is 0. Of equal ones the last one counts.
 * @param vals  The value of each; may be NULL only if n is 0.
 * @param n     Their number.
 * @param done  Receives, also if the call fails, how many keys are done: the first ones, and no others. May be NULL.
 *
 * @return NETSHM_OK, all are done; else the codes of netshm_hashtbl_add() for the first one that could not be done; a
 *         lock's time-out begins anew for each. In a group that goes on, those that are done are part of it. Wrong
 *         arguments are found before any is done.
 */
int netshm_hashtbl_replace_many(netshm_hashtbl *t,
                                const netshm_slice *keys,
                                const netshm_slice *vals,
                                size_t n,
                                size_t *done);

/**
 * Puts bindings of several keys on top of those that they have.
 *
 * This is n times netshm_hashtbl_add(), else like netshm_hashtbl_replace_many(). Of equal keys the last one ends up
 * on top.
 *
 * Parameters and return codes are those of netshm_hashtbl_replace_many().
 */
int netshm_hashtbl_add_many(netshm_hashtbl *t,
                            const netshm_slice *keys,
                            const netshm_slice *vals,
                            size_t n,
                            size_t *done);

/* ---- One binding by callback ----------------------------------------------------------------------------- */

/** Answer of an update: leave the binding as it is. So does every unknown answer that is not negative. */
#define NETSHM_KEEP 0
/** Answer of an update: replace the binding, or add one, by what netshm_update_set() was given. */
#define NETSHM_REPLACE 1
/** Answer of an update: remove the binding. */
#define NETSHM_REMOVE 2

/** An update under way. Valid during its callback only. */
typedef struct netshm_update netshm_update;

/**
 * Sees a value. The bytes hold still while it runs and are gone afterwards.
 *
 * @param data  The value; not NULL.
 * @param len   Its length in bytes.
 * @param arg   What was given to the call.
 *
 * @return Any number, which the call hands on.
 */
typedef int (*netshm_view_fn)(const void *data, size_t len, void *arg);

/**
 * Decides what becomes of a binding.
 *
 * It runs on the calling thread while the key is locked: it should be quick. Calls that change the same object, by any
 * handle, give NETSHM_E_IN_CALLBACK, and so do all that belong to a group, and netshm_sync(), netshm_backup(),
 * netshm_check() and netshm_table_dump(); finding outside of groups shows what was there before. Other objects can be used.
 *
 * @param u        The update, for netshm_update_set().
 * @param old      The newest binding; NULL if there is none. The bytes hold still while the callback runs.
 * @param old_len  Its length in bytes.
 * @param arg      What was given to the call.
 *
 * @return #NETSHM_KEEP, #NETSHM_REPLACE or #NETSHM_REMOVE; or a negative number: nothing is changed, and the call
 *         fails with it (see "Callbacks" at the top).
 */
typedef int (*netshm_update_fn)(netshm_update *u, const void *old, size_t old_len, void *arg);

/**
 * Shows the newest binding of a key to a callback. The callback may call everything.
 *
 * @param t        The table.
 * @param key      The key; may be NULL only if key_len is 0.
 * @param key_len  Its length in bytes.
 * @param fn       Called once if there is a binding.
 * @param arg      Handed to the callback.
 * @param answer   Receives what the callback returned; may be NULL.
 *
 * @return NETSHM_OK; NETSHM_E_NOT_FOUND, and the callback was not called; else the codes of netshm_hashtbl_find().
 */
int netshm_hashtbl_view(netshm_hashtbl *t,
                        const void *key,
                        size_t key_len,
                        netshm_view_fn fn,
                        void *arg,
                        int *answer);

/**
 * Sets the value for #NETSHM_REPLACE. If it is called again, the last value counts.
 *
 * @param u        What the callback was given. It can be used by the callback's thread and during it only.
 * @param val      The value, which is copied; may be NULL only if val_len is 0.
 * @param val_len  Its length in bytes.
 *
 * @return NETSHM_OK; NETSHM_E_CLOSED, the callback has returned; NETSHM_E_TYPE, the values are not raw bytes, see
 *         netshm_update_set_v(); NETSHM_E_NO_MEMORY; NETSHM_E_TOO_LARGE; NETSHM_E_INVALID.
 */
int netshm_update_set(netshm_update *u,
                      const void *val,
                      size_t val_len);

/**
 * Appends bytes to the value that was set so far.
 *
 * @param u         What the callback was given. It can be used by the callback's thread and during it only.
 * @param data      The bytes, which are copied; may be NULL only if len is 0.
 * @param len       Their number.
 *
 * @return As for netshm_update_set().
 */
int netshm_update_append(netshm_update *u, const void *data, size_t len);

/**
 * Calls a callback once, under the key's lock, with the newest binding, and does what it answers.
 *
 * Read-modify-write of one key in this way is atomic and never meets a deadlock outside of groups.
 *
 * @param t        The table.
 * @param key      The key; may be NULL only if key_len is 0.
 * @param key_len  Its length in bytes.
 * @param fn       Called once.
 * @param arg      Handed to the callback.
 *
 * @return NETSHM_OK, also if the answer was NETSHM_KEEP; NETSHM_E_CALLBACK, it answered NETSHM_REPLACE without a
 *         value, or a reserved negative number; its negative answer; else the codes of netshm_hashtbl_add().
 */
int netshm_hashtbl_update(netshm_hashtbl *t,
                          const void *key,
                          size_t key_len,
                          netshm_update_fn fn,
                          void *arg);

/* ---- Walking over a table -------------------------------------------------------------------------------- */

/** Answer of a callback: that is enough. So does every unknown answer that is not negative. */
#define NETSHM_STOP 0
/** Answer of a callback: go on. */
#define NETSHM_CONTINUE 1
/** Flag of a cursor: every key once, without values. */
#define NETSHM_CURSOR_KEYS 1

/** A walk over a table without a callback. Closed by netshm_cursor_close(). */
typedef struct netshm_cursor netshm_cursor;

/**
 * Sees one binding. The bytes are copies, which live while the callback runs. It may call everything.
 *
 * @param key  The key.
 * @param val  The value; with netshm_hashtbl_iter_keys() `data` is NULL and `len` is 0.
 * @param arg  What was given to the call.
 *
 * @return #NETSHM_CONTINUE or #NETSHM_STOP; or a negative number: the call stops and fails with it (see "Callbacks"
 *         at the top).
 */
typedef int (*netshm_iter_fn)(netshm_slice key, netshm_slice val, void *arg);

/**
 * Calls a callback with every binding, keys in any order, the bindings of one key newest first.
 *
 * Nothing is locked meanwhile. A binding that is there from beginning to end is seen exactly once, one that is
 * made or removed meanwhile at most once. In a group the group's view is seen, and other writers wait until
 * the group ends.
 *
 * @param t    The table.
 * @param fn   The callback.
 * @param arg  Handed to the callback.
 *
 * @return NETSHM_OK, also if the callback stopped it; the callback's negative answer; NETSHM_E_CALLBACK; else the
 *         codes of netshm_hashtbl_find().
 */
int netshm_hashtbl_iter(netshm_hashtbl *t,
                        netshm_iter_fn fn,
                        void *arg);

/** Calls a callback with every key once. Else it is like netshm_hashtbl_iter(). */
int netshm_hashtbl_iter_keys(netshm_hashtbl *t, netshm_iter_fn fn, void *arg);

/**
 * Opens a cursor, which sees what netshm_hashtbl_iter() sees. It keeps its table open by itself.
 *
 * @param t      The table.
 * @param flags  0 or #NETSHM_CURSOR_KEYS.
 * @param out    Receives the cursor. It may be used by any thread, but by one at a time.
 *
 * @return NETSHM_OK, NETSHM_E_INVALID, NETSHM_E_CLOSED.
 */
int netshm_cursor_open(netshm_hashtbl *t, uint32_t flags, netshm_cursor **out);

/**
 * Moves a cursor to the next binding.
 *
 * @param c    The cursor.
 * @param key  Receives the key; may be NULL.
 * @param val  Receives the value; may be NULL. With #NETSHM_CURSOR_KEYS `data` is NULL and `len` is 0.
 *
 * The bytes belong to the cursor and live until the next call with it.
 *
 * @return NETSHM_OK; NETSHM_E_NOT_FOUND, there is no more; NETSHM_E_BUSY, another thread is using the cursor; else
 *         the codes of netshm_hashtbl_find(). After an error the cursor is at its end.
 */
int netshm_cursor_next(netshm_cursor *c,
                       netshm_slice *key,
                       netshm_slice *val);

/**
 * Closes a cursor.
 *
 * @param c  The cursor; NULL is OK.
 *
 * @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type.
 */
int netshm_cursor_close(netshm_cursor *c);

/* ---- Typed values ---------------------------------------------------------------------------------------- */

/**
 * Kind of a cell: an integer, as.i. Of types int, int32, int64, nativeint. Where the caller gives an integer of any
 * type, also of uint, both kinds of integer cells will do: the number counts, and has to fit. What is read has the
 * type's own kind.
 */
#define NETSHM_V_INT 1
/** Kind of a cell: an unsigned integer, as.u. Of type uint; see #NETSHM_V_INT. */
#define NETSHM_V_UINT 2
/** Kind of a cell: a double, as.d. */
#define NETSHM_V_DOUBLE 3
/** Kind of a cell: bytes, as.s. Of types string, bytes, int32[] (4 little-endian bytes for each number). */
#define NETSHM_V_BYTES 4
/** Kind of a cell: an option that has a content, whose cells follow. */
#define NETSHM_V_SOME 5
/** Kind of a cell: an option without content. */
#define NETSHM_V_NONE 6
/** Kind of a cell: an object of a custom type, as.object. */
#define NETSHM_V_CUSTOM 7

/** The content of a cell; its kind says which member. */
typedef union netshm_content {
    /** With #NETSHM_V_INT. */
    int64_t i;
    /** With #NETSHM_V_UINT. */
    uint64_t u;
    /** With #NETSHM_V_DOUBLE. */
    double d;
    /** With #NETSHM_V_BYTES. */
    netshm_slice s;
    /** With #NETSHM_V_CUSTOM. */
    void *object;
} netshm_content;

/**
 * A cell. A value is its leaves in order, each a cell: one cell for a number, a string, an object; those of
 * the left and then those of the right half for a pair; for an option #NETSHM_V_NONE, or #NETSHM_V_SOME and
 * the cells of the content.
 *
 * The helpers below make cells: `netshm_value v[] = { netshm_int(5), netshm_some(), netshm_str("x") };` is a
 * value of type `(int,string?)`.
 */
typedef struct netshm_value {
    /** One of the NETSHM_V_ numbers. */
    uint32_t kind;
    /** Padding. It is not looked at; cells that the library makes have 0. */
    uint32_t reserved;
    /** The content. */
    union netshm_content as;
} netshm_value;

/*
 * Makers of cells, for `netshm_value v[] = { netshm_int(5), netshm_str("x") };`. With NETSHM_NO_INLINE defined the
 * header has declarations only, for other languages' readers of headers.
 */
#ifndef NETSHM_NO_INLINE

/** An integer, for int, int32, int64, nativeint. */
static inline netshm_value netshm_int(int64_t i)
{
    netshm_value v;
    v.kind = NETSHM_V_INT;
    v.reserved = 0;
    v.as.i = i;
    return v;
}

/** An unsigned integer, for uint. */
static inline netshm_value netshm_uint(uint64_t u)
{
    netshm_value v;
    v.kind = NETSHM_V_UINT;
    v.reserved = 0;
    v.as.u = u;
    return v;
}

/** A double. */
static inline netshm_value netshm_double(double d)
{
    netshm_value v;
    v.kind = NETSHM_V_DOUBLE;
    v.reserved = 0;
    v.as.d = d;
    return v;
}

/** Bytes, for string, bytes, int32[]. They are not copied until a call gets the cell. */
static inline netshm_value netshm_bytes(const void *data, size_t len)
{
    netshm_value v;
    v.kind = NETSHM_V_BYTES;
    v.reserved = 0;
    v.as.s.data = data;
    v.as.s.len = len;
    return v;
}

/** The bytes of a C string, without the zero at its end. */
static inline netshm_value netshm_str(const char *text)
{
    size_t len = 0;
    while (text[len] != 0) len++;
    return netshm_bytes(text, len);
}

/** An option with a content, whose cells follow. */
static inline netshm_value netshm_some(void)
{
    netshm_value v;
    v.kind = NETSHM_V_SOME;
    v.reserved = 0;
    v.as.u = 0;
    return v;
}

/** An option without content. */
static inline netshm_value netshm_none(void)
{
    netshm_value v;
    v.kind = NETSHM_V_NONE;
    v.reserved = 0;
    v.as.u = 0;
    return v;
}

/** An object of a custom type. */
static inline netshm_value netshm_custom_object(void *object)
{
    netshm_value v;
    v.kind = NETSHM_V_CUSTOM;
    v.reserved = 0;
    v.as.object = object;
    return v;
}
#endif /* NETSHM_NO_INLINE */

/** An array of cells and their number, as two arguments of a call. */
#define NETSHM_CELLS(array) (array), sizeof(array) / sizeof((array)[0])

/* ---- Types ----------------------------------------------------------------------------------------------- */

/**
 * Turns an object of a custom type into bytes. It runs before anything is locked and may call everything.
 *
 * @param object  What the cell holds.
 * @param out     Takes the bytes, by netshm_update_set() or netshm_update_append(). Equal objects must give
 *                equal bytes if they are used as keys.
 * @param arg     As given with the type.
 *
 * @return NETSHM_OK; or a negative number, with which the call fails (see "Callbacks" at the top). Nothing is
 *         changed then, nor if it gave no bytes: netshm_update_set() with length 0 gives an empty value.
 */
typedef int (*netshm_encode_fn)(const void *object, netshm_update *out, void *arg);

/**
 * Makes an object of a custom type from bytes. Nothing is locked meanwhile, except by an open group.
 *
 * @param bytes   What netshm_encode_fn gave; or anything, if another program has written it.
 * @param object  Receives the object. It belongs to the result that the value is read into.
 * @param arg     As given with the type.
 *
 * @return NETSHM_OK; or a negative number, with which the call fails, for instance NETSHM_E_CORRUPT.
 */
typedef int (*netshm_decode_fn)(netshm_slice bytes, void **object, void *arg);

/** Ends an object that netshm_decode_fn has made: its result is used again or freed. */
typedef void (*netshm_drop_fn)(void *object, void *arg);

/**
 * A custom type: its name, which the signature has, and its conversions.
 *
 * Programs on one table must agree about what the name means. The callbacks run on whatever thread makes a
 * call, and on several at once; they must not close the table or free the result that the call uses.
 */
typedef struct netshm_custom {
    /** Size of this structure in bytes. */
    size_t size;
    /** 1 to 64 letters, digits, '.', '-', '_'. It is copied. */
    const char *name;
    /**
     * Handed to the callbacks. It must stay valid until the type, all types and tables made with it, and
     * all results that hold its objects are closed.
     */
    void *arg;
    /** Object to bytes. */
    netshm_encode_fn encode;
    /** Bytes to object. */
    netshm_decode_fn decode;
    /** End of an object that was decoded; may be NULL. */
    netshm_drop_fn drop;
} netshm_custom;

/**
 * Makes the type that a signature describes, for instance `int`, `(int,string?)`, `int32[]`.
 *
 * @param signature  Its text. docs/types.md has the grammar: the simple types `int`, `int32`, `int64`,
 *                   `nativeint`, `uint`, `double`, `string`, `bytes`, `int32[]` and `custom:NAME`; pairs
 *                   `(A,B)`; `(A,_)`, the left half of any pair that begins with A; options `A?`.
 * @param out        Receives the type, to be closed by netshm_type_close().
 *
 * @return NETSHM_OK; NETSHM_E_INVALID, it is no signature: `offset` of #netshm_error is the position, counted
 *         from 0, of the first byte that cannot be there: what stands before it is the beginning of some
 *         signature, and with it no more is (3 for `integer`); it is the length of a text that only ends too
 *         early; NETSHM_E_TOO_LARGE, more than 504 bytes or nested more than 32 deep.
 */
int netshm_type_parse(const char *signature, netshm_type **out);

/**
 * Makes a type of two others.
 *
 * @param left   The type of the left half; it stays the caller's.
 * @param right  The type of the right half, likewise.
 * @param out    Receives the type.
 *
 * @return NETSHM_OK; NETSHM_E_TOO_LARGE; NETSHM_E_INVALID; NETSHM_E_CLOSED.
 */
int netshm_type_pair(netshm_type *left, netshm_type *right, netshm_type **out);

/**
 * Makes the type of the left half of a pair whose right half may be anything. It reads recorded pairs, and
 * nothing can be written through it.
 *
 * @param left  The type of the left half; it stays the caller's.
 * @param out   Receives the type.
 *
 * @return As for netshm_type_pair().
 */
int netshm_type_left(netshm_type *left, netshm_type **out);

/**
 * Makes the type of a value that may be missing.
 *
 * @param content  The type of the value; it stays the caller's.
 * @param out      Receives the type.
 *
 * @return As for netshm_type_pair().
 */
int netshm_type_option(netshm_type *content, netshm_type **out);

/**
 * Makes a custom type.
 *
 * @param c    Its description, which is copied.
 * @param out  Receives the type.
 *
 * @return NETSHM_OK; NETSHM_E_INVALID.
 */
int netshm_type_custom(const netshm_custom *c, netshm_type **out);

/**
 * Gives a type's signature.
 *
 * @param t     The type.
 * @param text  Receives the text, which lives as long as the type's handle.
 *
 * @return NETSHM_OK; NETSHM_E_INVALID; NETSHM_E_CLOSED.
 */
int netshm_type_signature(netshm_type *t, const char **text);

/**
 * Closes a type's handle. Types and tables that were made with it stay usable.
 *
 * @param t  The handle; NULL is OK.
 *
 * @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type.
 */
int netshm_type_close(netshm_type *t);

/* ---- Results --------------------------------------------------------------------------------------------- */

/**
 * A place for the values that typed calls find. It is used again by each call that gets it, and keeps its
 * memory; so a program needs one for each thread, or one for each value that it wants to keep. Ended by
 * netshm_result_free().
 */
typedef struct netshm_result netshm_result;

/**
 * Makes an empty result.
 *
 * @param out  Receives it. It may be used by any thread, but by one at a time.
 *
 * @return NETSHM_OK; NETSHM_E_INVALID.
 */
int netshm_result_new(netshm_result **out);

/**
 * Gives the value that the last call with a result has found; with several, the first one.
 *
 * @param r  The result.
 * @param v  Receives the cells. Bytes in them are followed by a zero byte, which is not counted, and begin at a
 *           multiple of 8. Cells, bytes and objects live until the result is used again or freed.
 * @param n  Receives the number of cells.
 *
 * @return NETSHM_OK; NETSHM_E_NOT_FOUND, it holds none: the last call with it has failed or found nothing;
 *         NETSHM_E_BUSY, from a callback of the call that fills it; NETSHM_E_INVALID, NETSHM_E_CLOSED.
 */
int netshm_result_values(netshm_result *r,
                         const netshm_value **v,
                         size_t *n);

/**
 * Gives one of several values, as found by netshm_hashtbl_find_all_v().
 *
 * @param r  The result.
 * @param i  Which one, the first being 0.
 * @param v  Receives the cells, as with netshm_result_values().
 * @param n  Receives the number of cells.
 *
 * @return NETSHM_OK; NETSHM_E_RANGE, there are not so many; else the codes of netshm_result_values().
 */
int netshm_result_at(netshm_result *r, size_t i, const netshm_value **v, size_t *n);

/**
 * Frees a result and all that it holds.
 *
 * @param r  The result; NULL is OK.
 *
 * @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type.
 */
int netshm_result_free(netshm_result *r);

/* ---- Typed hash tables ----------------------------------------------------------------------------------- */

/**
 * Views an object as a hash table of types that are given by their signatures; else as netshm_hashtbl_manage().
 *
 * @param o        The object. Its handle may be closed afterwards.
 * @param key      The signature of the keys' type, for instance "string"; NULL as there.
 * @param val      The signature of the values' type, for instance "(int,string?)"; NULL as there.
 * @param options  How; NULL gives the defaults.
 * @param out      Receives the handle.
 *
 * @return The codes of netshm_hashtbl_manage() and netshm_type_parse().
 */
int netshm_hashtbl_manage_as(netshm_object *o,
                             const char *key,
                             const char *val,
                             const netshm_options *options,
                             netshm_hashtbl **out);

/**
 * Puts a binding on top of those that the key has. They are hidden, not removed.
 *
 * @param t    The table; safe to use from several threads.
 * @param key  The cells of the key.
 * @param nk   Their number.
 * @param val  The cells of the value.
 * @param nv   Their number.
 *
 * @return NETSHM_OK; NETSHM_E_TYPE, the cells are not those of the recorded types, or a type is for reading only;
 *         NETSHM_E_OVERFLOW, an integer does not fit into its type; a custom type's answer; else the codes of
 *         netshm_hashtbl_add(). Nothing has changed then.
 */
int netshm_hashtbl_add_v(netshm_hashtbl *t,
                         const netshm_value *key,
                         size_t nk,
                         const netshm_value *val,
                         size_t nv);

/**
 * Replaces the newest binding of the key, or adds one if there is none.
 *
 * Parameters and return codes are those of netshm_hashtbl_add_v().
 */
int netshm_hashtbl_replace_v(netshm_hashtbl *t,
                             const netshm_value *key,
                             size_t nk,
                             const netshm_value *val,
                             size_t nv);

/**
 * Binds a key that has no binding yet.
 *
 * Parameters as for netshm_hashtbl_add_v().
 *
 * @return NETSHM_OK; NETSHM_E_EXISTS, the key has a binding; else the codes of netshm_hashtbl_add_v().
 */
int netshm_hashtbl_insert_v(netshm_hashtbl *t,
                            const netshm_value *key,
                            size_t nk,
                            const netshm_value *val,
                            size_t nv);

/**
 * Removes the newest binding of the key, so that the one before it shows again.
 *
 * @param t          The table.
 * @param key        The cells of the key.
 * @param nk         Their number.
 * @param was_there  Receives 1 if there was a binding, 0 if not; may be NULL.
 *
 * @return NETSHM_OK, also if there was none; else the codes of netshm_hashtbl_add_v().
 */
int netshm_hashtbl_remove_v(netshm_hashtbl *t, const netshm_value *key, size_t nk, int *was_there);

/**
 * Tells whether a key has a binding.
 *
 * @param t      The table.
 * @param key    The cells of the key.
 * @param nk     Their number.
 * @param found  Receives 1 if it has one, 0 if not.
 *
 * @return NETSHM_OK; else the codes of netshm_hashtbl_find_v().
 */
int netshm_hashtbl_mem_v(netshm_hashtbl *t, const netshm_value *key, size_t nk, int *found);

/**
 * Finds the newest binding of a key.
 *
 * @param t    The table; safe to use from several threads.
 * @param key  The cells of the key.
 * @param nk   Their number.
 * @param r    Receives the value, see netshm_result_values(). It is empty after any other code than NETSHM_OK
 *             that comes with a good handle of it.
 *
 * @return NETSHM_OK; NETSHM_E_NOT_FOUND, the key has no binding; NETSHM_E_TYPE, NETSHM_E_OVERFLOW as for
 *         netshm_hashtbl_add_v(); NETSHM_E_CORRUPT, the value does not decode; a custom type's answer;
 *         NETSHM_E_BUSY, from a callback of the call that fills `r`; else the codes of netshm_hashtbl_find().
 */
int netshm_hashtbl_find_v(netshm_hashtbl *t, const netshm_value *key, size_t nk, netshm_result *r);

/**
 * Finds all bindings of a key.
 *
 * @param t    The table.
 * @param key  The cells of the key.
 * @param nk   Their number.
 * @param r    Receives the values, newest first, see netshm_result_at().
 * @param n    Receives the number of values.
 *
 * @return NETSHM_OK, also if there is none; else the codes of netshm_hashtbl_find_v().
 */
int netshm_hashtbl_find_all_v(netshm_hashtbl *t,
                              const netshm_value *key,
                              size_t nk,
                              netshm_result *r,
                              size_t *n);

/**
 * Adds to the integer that is bound to a key, atomically. The values must be of type int, int64 or nativeint.
 *
 * @param t        The table.
 * @param key      The cells of the key.
 * @param nk       Their number.
 * @param delta    What to add; may be negative.
 * @param initial  What a key without binding counts from: it gets initial + delta.
 * @param now      Receives the sum; may be NULL.
 *
 * @return NETSHM_OK; NETSHM_E_OVERFLOW; NETSHM_E_TYPE; else the codes of netshm_hashtbl_add_v(). Nothing has changed
 *         then.
 */
int netshm_hashtbl_incr_v(netshm_hashtbl *t,
                          const netshm_value *key,
                          size_t nk,
                          int64_t delta,
                          int64_t initial,
                          int64_t *now);

/* ---- Walking over a typed table -------------------------------------------------------------------------- */

/**
 * Sees one binding. Cells, bytes and objects live while the callback runs. It may call everything.
 *
 * @param key  The cells of the key.
 * @param nk   Their number.
 * @param val  The cells of the value; NULL with netshm_hashtbl_iter_keys_v().
 * @param nv   Their number.
 * @param arg  What was given to the call.
 *
 * @return As of netshm_iter_fn.
 */
typedef int (*netshm_iter_v_fn)(const netshm_value *key,
                                size_t nk,
                                const netshm_value *val,
                                size_t nv,
                                void *arg);

/**
 * Calls a callback with every binding; else it is like netshm_hashtbl_iter().
 *
 * @param t    The table.
 * @param fn   The callback.
 * @param arg  Handed to the callback.
 *
 * @return NETSHM_OK, also if the callback stopped it; the callback's negative answer; NETSHM_E_CORRUPT, a key or a
 *         value does not decode; a custom type's answer; else the codes of netshm_hashtbl_find().
 */
int netshm_hashtbl_iter_v(netshm_hashtbl *t,
                          netshm_iter_v_fn fn,
                          void *arg);

/** Calls a callback with every key once. Else it is like netshm_hashtbl_iter_v(). */
int netshm_hashtbl_iter_keys_v(netshm_hashtbl *t, netshm_iter_v_fn fn, void *arg);

/**
 * Moves a cursor to the next binding of a typed table; else it is like netshm_cursor_next().
 *
 * @param c    The cursor.
 * @param key  Receives the key; may be NULL.
 * @param val  Receives the value; may be NULL. With #NETSHM_CURSOR_KEYS it is empty. It must not be `key`.
 *
 * The values belong to the results, not to the cursor.
 *
 * @return NETSHM_OK; NETSHM_E_NOT_FOUND, there is no more; NETSHM_E_CORRUPT, the key or the value does not decode, and
 *         the cursor has passed it; NETSHM_E_BUSY, another thread is using the cursor, or another call the result; a
 *         custom type's answer; else the codes of netshm_cursor_next(). What the results hold then is unspecified.
 */
int netshm_cursor_next_v(netshm_cursor *c,
                         netshm_result *key,
                         netshm_result *val);

/* ---- One typed binding by callback ----------------------------------------------------------------------- */

/**
 * Decides what becomes of a typed binding.
 *
 * It runs as a netshm_update_fn does, while the key is locked, and so do the conversions of custom types.
 *
 * @param u    The update, for netshm_update_set_v().
 * @param old  The cells of the newest binding; NULL if there is none. Cells, bytes and objects live while the callback
 *             runs.
 * @param no   Their number; 0 if there is none.
 * @param arg  What was given to the call.
 *
 * @return As of netshm_update_fn.
 */
typedef int (*netshm_update_v_fn)(netshm_update *u, const netshm_value *old, size_t no, void *arg);

/**
 * Sets the value for #NETSHM_REPLACE, also in the callback of netshm_hashtbl_update(). If it is called again, the last
 * value counts.
 *
 * @param u    What the callback was given. It can be used by the callback's thread and during it only.
 * @param val  The cells of the value, which are copied.
 * @param nv   Their number.
 *
 * @return NETSHM_OK; NETSHM_E_CLOSED, the callback has returned; NETSHM_E_TYPE, the cells are not those of the values'
 *         type, or it is a custom type's conversion, which gives bytes; NETSHM_E_OVERFLOW, an integer does not fit into
 *         its type; a custom type's answer; NETSHM_E_NO_MEMORY, NETSHM_E_TOO_LARGE, NETSHM_E_INVALID. What was set
 *         before stays then.
 */
int netshm_update_set_v(netshm_update *u,
                        const netshm_value *val,
                        size_t nv);

/**
 * Calls a callback once, under the key's lock, with the newest binding, and does what it answers; else it is like
 * netshm_hashtbl_update().
 *
 * @param t    The table.
 * @param key  The cells of the key.
 * @param nk   Their number.
 * @param fn   Called once.
 * @param arg  Handed to the callback.
 *
 * @return NETSHM_OK, also if the answer was NETSHM_KEEP; NETSHM_E_CALLBACK, it answered NETSHM_REPLACE without a
 *         value, or a reserved negative number; its negative answer; NETSHM_E_CORRUPT, the binding does not decode, and
 *         the callback was not called; else the codes of netshm_hashtbl_add_v(). Nothing has changed then.
 */
int netshm_hashtbl_update_v(netshm_hashtbl *t,
                            const netshm_value *key,
                            size_t nk,
                            netshm_update_v_fn fn,
                            void *arg);

/**
 * Replaces the newest binding if it equals an expected value. Values are equal if their encodings are.
 *
 * @param t    The table; safe to use from several threads.
 * @param key  The cells of the key.
 * @param nk   Their number.
 * @param old  The cells of the expected value.
 * @param no   Their number.
 * @param val  The cells of the new value.
 * @param nv   Their number.
 *
 * @return NETSHM_OK; NETSHM_E_CHANGED, the value is another one; NETSHM_E_NOT_FOUND, the key has no binding; else the
 *         codes of netshm_hashtbl_add_v(). Nothing has changed then.
 */
int netshm_hashtbl_cas_v(netshm_hashtbl *t,
                         const netshm_value *key,
                         size_t nk,
                         const netshm_value *old,
                         size_t no,
                         const netshm_value *val,
                         size_t nv);

/* ---- Arrays ---------------------------------------------------------------------------------------------- */

/**
 * An array in an object. Elements that were never set show the default value and take no memory. Closed by
 * netshm_array_close().
 */
typedef struct netshm_array netshm_array;

/**
 * Sees one element. The bytes are a copy, which lives while the callback runs. It may call everything.
 *
 * @param i        The element's index.
 * @param encoded  The element as it is stored, see netshm_array_read().
 * @param arg      What was given to the call.
 *
 * @return #NETSHM_CONTINUE or #NETSHM_STOP; or a negative number: the call stops and fails with it (see "Callbacks"
 *         at the top).
 */
typedef int (*netshm_array_iter_fn)(uint64_t i, netshm_slice encoded, void *arg);

/**
 * Views an object as an array of integers of 64 bits, type `int64`. An empty object becomes one.
 *
 * Two processes that do this at the same moment with a new object both get the one array.
 *
 * @param o        The object. Its handle may be closed afterwards.
 * @param dflt     The value of elements that were never set. An array that is there keeps its own.
 * @param length   The number of elements of a new array, at most 2^48. An array that is there keeps its own.
 * @param options  How; NULL gives the defaults.
 * @param out      Receives the handle.
 *
 * @return NETSHM_OK; NETSHM_E_TYPE, its elements are of another type; NETSHM_E_KIND, the object holds something
 *         else; NETSHM_E_TOO_LARGE; else the codes of netshm_hashtbl_manage().
 */
int netshm_array_manage_int64(netshm_object *o,
                              int64_t dflt,
                              uint64_t length,
                              const netshm_options *options,
                              netshm_array **out);

/**
 * Gives the underlying table, which is what groups are about.
 *
 * @param a  The array.
 *
 * @return The table, which is borrowed and ends with `a`; NULL if `a` is NULL, closed or of another type.
 */
netshm_table *netshm_array_table(netshm_array *a);

/**
 * Closes an array's handle. Open groups stay usable.
 *
 * @param a  The handle; NULL is OK.
 *
 * @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type.
 */
int netshm_array_close(netshm_array *a);

/**
 * Gives the number of elements. In a group nobody else changes it until the group ends.
 *
 * @param a  The array; safe to use from several threads.
 * @param n  Receives the number.
 *
 * @return NETSHM_OK; NETSHM_E_TIMEOUT; NETSHM_E_DEADLOCK, in a group; NETSHM_E_IN_CALLBACK, from an update in a group on
 *         the same object; NETSHM_E_FORKED, in a child whose parent has a group open; NETSHM_E_CORRUPT, NETSHM_E_STALE,
 *         NETSHM_E_INVALID, NETSHM_E_CLOSED.
 */
int netshm_array_length(netshm_array *a,
                        uint64_t *n);

/**
 * Changes the number of elements. New ones show the default value; those cut off are gone, also if the array
 * grows again. Everybody else is kept out meanwhile.
 *
 * @param a  The array.
 * @param n  The new number, at most 2^48.
 *
 * @return NETSHM_OK; NETSHM_E_TOO_LARGE; else the codes of netshm_array_set_int64(). Nothing has changed then.
 */
int netshm_array_resize(netshm_array *a,
                        uint64_t n);

/**
 * Reads an element of an array of integers: of type `int`, `int32`, `int64`, `nativeint` or `uint`.
 *
 * This takes no lock and makes no system call, unless a process has died in the middle of a change.
 *
 * @param a      The array; safe to use from several threads.
 * @param i      The index, from 0.
 * @param value  Receives the element.
 *
 * @return NETSHM_OK; NETSHM_E_RANGE, the index is not below the length; NETSHM_E_TYPE, elements are not integers;
 *         NETSHM_E_OVERFLOW, a `uint` beyond 2^63 - 1; NETSHM_E_CORRUPT; NETSHM_E_TIMEOUT, the way was blocked by
 *         a writer; NETSHM_E_BUSY; NETSHM_E_STALE; NETSHM_E_DEADLOCK, NETSHM_E_IN_CALLBACK and NETSHM_E_FORKED as for
 *         netshm_hashtbl_add(); NETSHM_E_INVALID, NETSHM_E_CLOSED.
 */
int netshm_array_get_int64(netshm_array *a,
                           uint64_t i,
                           int64_t *value);

/**
 * Sets an element of an array of integers.
 *
 * @param a      The array; safe to use from several threads.
 * @param i      The index, from 0.
 * @param value  The new value.
 *
 * @return NETSHM_OK; NETSHM_E_RANGE, the index is not below the length; NETSHM_E_TYPE, elements are not integers;
 *         NETSHM_E_OVERFLOW, the value does not fit into an element; else the codes of netshm_hashtbl_add().
 *         Nothing has changed then.
 */
int netshm_array_set_int64(netshm_array *a,
                           uint64_t i,
                           int64_t value);

/**
 * Adds to an element of an array of integers, in one step.
 *
 * @param a      The array; safe to use from several threads.
 * @param i      The index, from 0.
 * @param delta  What to add; may be negative.
 * @param now    Receives the sum; may be NULL.
 *
 * @return NETSHM_OK; NETSHM_E_OVERFLOW, the sum does not fit into an element; else the codes of
 *         netshm_array_set_int64(). Nothing has changed then.
 */
int netshm_array_incr(netshm_array *a, uint64_t i, int64_t delta, int64_t *now);

/**
 * Copies a slice of elements into the caller's buffer: all of them as they were at one moment.
 *
 * Elements lie there one after the other as they are stored: integers and doubles in little-endian byte order, which
 * is that of the machine nearly everywhere. Types whose encoding is not of one size, or of more than 256 bytes,
 * have no slices.
 *
 * @param a          The array; safe to use from several threads.
 * @param first      Index of the first element.
 * @param n          The number of elements.
 * @param buf        Receives n * elem_size bytes; may be NULL only if n is 0. What it holds after any other code
 *                   than NETSHM_OK is unspecified.
 * @param elem_size  Bytes of an element: 4 for `int32`, 8 for the other numbers.
 *
 * @return NETSHM_OK; NETSHM_E_RANGE, not all of the slice is inside of the array; NETSHM_E_TYPE, there are no
 *         slices of this type; NETSHM_E_INVALID, elements are of another size; else the codes of
 *         netshm_array_get_int64().
 */
int netshm_array_read(netshm_array *a,
                      uint64_t first,
                      size_t n,
                      void *buf,
                      size_t elem_size);

/**
 * Sets a slice of elements in one transaction: others see all of them or none.
 *
 * The new values are written beside the old ones, and the two take turns: up to 1 MB of the object's memory stays
 * with the calling thread for its next slice. A thread that writes long slices within ten seconds of each other keeps
 * as much as the longest (64 MB at most), if as much is left for others, until it does something else, such as a group,
 * or ends.
 *
 * @param a          The array; safe to use from several threads.
 * @param first      Index of the first element.
 * @param n          The number of elements.
 * @param buf        n * elem_size bytes, as netshm_array_read() gives them; may be NULL only if n is 0.
 * @param elem_size  Bytes of an element.
 *
 * @return As netshm_array_read(), and the codes of netshm_array_set_int64(). Nothing has changed then.
 */
int netshm_array_write(netshm_array *a,
                       uint64_t first,
                       size_t n,
                       const void *buf,
                       size_t elem_size);

/**
 * Calls a callback with every element that is set, in any order.
 *
 * Nothing is locked meanwhile. An element that is set from beginning to end is seen exactly once, one that is
 * set meanwhile at most once. In a group the group's view is seen, and other writers wait until the group ends.
 *
 * @param a    The array.
 * @param fn   The callback.
 * @param arg  Handed to the callback.
 *
 * @return NETSHM_OK, also if the callback stopped it; the callback's negative answer; NETSHM_E_CALLBACK; else the
 *         codes of netshm_array_get_int64().
 */
int netshm_array_iter(netshm_array *a,
                      netshm_array_iter_fn fn,
                      void *arg);

/* ---- Arrays of any type ---------------------------------------------------------------------------------- */

/**
 * Sees one element. Cells, bytes and objects live while the callback runs. It may call everything.
 *
 * @param i    The element's index.
 * @param v    The cells of the element.
 * @param n    Their number.
 * @param arg  What was given to the call.
 *
 * @return As of netshm_array_iter_fn.
 */
typedef int (*netshm_array_iter_v_fn)(uint64_t i, const netshm_value *v, size_t n, void *arg);

/**
 * Views an object as an array. An empty object becomes one.
 *
 * Two processes that do this at the same moment with a new object both get the one array.
 *
 * @param o        The object. Its handle may be closed afterwards.
 * @param elem     The type of the elements. Left halves of pairs are not possible. NULL: whatever is recorded; then there
 *                 must be an array, and the next three do not matter.
 * @param dflt     The cells of the value of elements that were never set. An array that is there keeps its own. NULL, with
 *                 `nd` 0: whatever is recorded; then there must be an array.
 * @param nd       Their number.
 * @param length   The number of elements of a new array, at most 2^48. An array that is there keeps its own.
 * @param options  How; NULL gives the defaults.
 * @param out      Receives the handle.
 *
 * @return NETSHM_OK; NETSHM_E_TYPE, its elements are of another type, or the cells are not of this type;
 *         NETSHM_E_KIND, the object holds something else; NETSHM_E_INVALID, also for a new or re-initialised array
 *         without a type or a default value; NETSHM_E_TOO_LARGE, also for a default value of more than 2048 bytes;
 *         NETSHM_E_UNSUPPORTED; else the codes of netshm_hashtbl_manage().
 */
int netshm_array_manage(netshm_object *o,
                        netshm_type *elem,
                        const netshm_value *dflt,
                        size_t nd,
                        uint64_t length,
                        const netshm_options *options,
                        netshm_array **out);

/**
 * Gets an element.
 *
 * @param a  The array; safe to use from several threads.
 * @param i  The index, from 0.
 * @param r  Receives the cells of the element; see netshm_result_values().
 *
 * @return NETSHM_OK; NETSHM_E_RANGE, the index is not below the length; NETSHM_E_CORRUPT, it does not decode; else
 *         the codes of netshm_array_get_int64() and netshm_hashtbl_find_v().
 */
int netshm_array_get(netshm_array *a,
                     uint64_t i,
                     netshm_result *r);

/**
 * Sets an element.
 *
 * @param a  The array; safe to use from several threads.
 * @param i  The index, from 0.
 * @param v  The cells of the new value.
 * @param n  Their number.
 *
 * @return NETSHM_OK; NETSHM_E_RANGE, the index is not below the length; NETSHM_E_TYPE, the cells are not of the
 *         elements' type; NETSHM_E_OVERFLOW, a number does not fit; else the codes of netshm_hashtbl_add(). Nothing
 *         has changed then.
 */
int netshm_array_set(netshm_array *a,
                     uint64_t i,
                     const netshm_value *v,
                     size_t n);

/**
 * Gets the value of elements that were never set.
 *
 * @param a  The array.
 * @param r  Receives its cells.
 *
 * @return As netshm_array_get().
 */
int netshm_array_default(netshm_array *a, netshm_result *r);

/**
 * Calls a callback with every element that is set; else it is like netshm_array_iter().
 *
 * @param a    The array.
 * @param fn   The callback.
 * @param arg  Handed to the callback.
 *
 * @return NETSHM_OK, also if the callback stopped it; the callback's negative answer; NETSHM_E_CORRUPT, an element does
 *         not decode; a custom type's answer; else the codes of netshm_array_iter().
 */
int netshm_array_iter_v(netshm_array *a,
                        netshm_array_iter_v_fn fn,
                        void *arg);

/* ---- Primitive tables ------------------------------------------------------------------------------------ */

/** Answer of a walk over blocks: that is enough. So does every unknown answer that is not negative. */
#define NETSHM_BLOCK_BREAK 0
/** Answer of a walk over blocks: go on with the next fragment; after the end marker, with the next binding. */
#define NETSHM_BLOCK_GO 1
/** Answer of a walk over blocks: go on with the next binding at once. This one gets no end marker. */
#define NETSHM_BLOCK_NEXT 2

/**
 * Answer of netshm_table_write_blocks(), to be combined by `|` with one of the others: the binding is to be removed.
 * It counts whatever is answered later. Also the bit that announces it.
 */
#define NETSHM_BLOCK_REMOVE 4

/** Words somewhere. */
typedef struct netshm_words {
    /** The first word. */
    const int32_t *data;
    /** Their number. */
    size_t n;
} netshm_words;

/**
 * Sees one binding. The words are copies, which live while the callback runs. It may call everything.
 *
 * @param key    The key.
 * @param words  The value; with netshm_table_iter_keys() NULL.
 * @param n      Its length in words.
 * @param arg    What was given to the call.
 *
 * @return #NETSHM_CONTINUE or #NETSHM_STOP; or a negative number: the call stops and fails with it (see "Callbacks"
 *         at the top).
 */
typedef int (*netshm_words_fn)(int32_t key, const int32_t *words, size_t n, void *arg);

/**
 * Sees the bindings of a key, newest first, fragment by fragment.
 *
 * @param words  A fragment of the value, private to the call; NULL at the end of a binding. A value without words
 *               has an end only.
 * @param n      Its length in words, 1024 at most; 0 at the end.
 * @param arg    What was given to the call.
 *
 * @return #NETSHM_BLOCK_GO, #NETSHM_BLOCK_NEXT or #NETSHM_BLOCK_BREAK, with netshm_table_write_blocks() combined with
 *         #NETSHM_BLOCK_REMOVE or not; or a negative number: the call fails with it (see "Callbacks" at the top).
 */
typedef int (*netshm_block_fn)(int32_t *words, size_t n, void *arg);

/**
 * Views an object as a primitive table, which maps integers of 32 bits to arrays of such integers. An empty object
 * becomes one.
 *
 * @param o        The object. Its handle may be closed afterwards.
 * @param options  How; NULL gives the defaults.
 * @param out      Receives the handle, to be closed by netshm_table_close(). It is a table also for netshm_group().
 *
 * @return As netshm_hashtbl_manage(); NETSHM_E_KIND, the object holds another kind of table.
 */
int netshm_table_manage(netshm_object *o,
                        const netshm_options *options,
                        netshm_table **out);

/**
 * Closes the handle of a primitive table. Open groups stay usable.
 *
 * @param t  The handle; NULL is OK.
 *
 * @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type, or a borrowed one, such as
 *         netshm_hashtbl_table() gives: that one ends with its hash table.
 */
int netshm_table_close(netshm_table *t);

/**
 * Puts a binding on top of those that the key has. They are hidden, not removed.
 *
 * @param t      The table; safe to use from several threads.
 * @param key    The key.
 * @param words  The value; may be NULL only if n is 0.
 * @param n      Its length in words.
 *
 * @return NETSHM_OK; NETSHM_E_KIND, the table is not a primitive one; else the codes of netshm_hashtbl_add().
 */
int netshm_table_add(netshm_table *t, int32_t key, const int32_t *words, size_t n);

/**
 * Replaces the newest binding of the key, or adds one if there is none.
 *
 * Parameters and return codes are those of netshm_table_add().
 */
int netshm_table_replace(netshm_table *t, int32_t key, const int32_t *words, size_t n);

/**
 * Removes the newest binding of the key, so that the one before it shows again.
 *
 * @param t          The table.
 * @param key        The key.
 * @param was_there  Receives 1 if there was a binding, 0 if not; may be NULL.
 *
 * @return NETSHM_OK, also if there was none; else the codes of netshm_table_add().
 */
int netshm_table_remove(netshm_table *t, int32_t key, int *was_there);

/**
 * Tells whether a key has a binding.
 *
 * @param t      The table.
 * @param key    The key.
 * @param found  Receives 1 if it has one, 0 if not.
 *
 * @return NETSHM_OK; NETSHM_E_KIND; else the codes of netshm_hashtbl_find().
 */
int netshm_table_mem(netshm_table *t, int32_t key, int *found);

/**
 * Copies the newest binding of a key into the caller's buffer.
 *
 * @param t      The table; safe to use from several threads.
 * @param key    The key.
 * @param words  Receives the value; may be NULL only if cap is 0.
 * @param cap    Its size in words.
 * @param n      Receives the value's full length in words, also with NETSHM_E_TOO_SMALL.
 *
 * @return NETSHM_OK; NETSHM_E_NOT_FOUND; NETSHM_E_TOO_SMALL, *n words are needed; NETSHM_E_KIND; else the codes of
 *         netshm_hashtbl_find().
 */
int netshm_table_find(netshm_table *t,
                      int32_t key,
                      int32_t *words,
                      size_t cap,
                      size_t *n);

/**
 * Gives copies of all bindings of a key, newest first.
 *
 * @param t     The table.
 * @param key   The key.
 * @param vals  Receives an array of n values, in one block with what they point to, to be freed by one
 *              netshm_free(). NULL if there is none.
 * @param n     Receives the number of values.
 *
 * @return NETSHM_OK, also if there is none; NETSHM_E_NO_MEMORY; NETSHM_E_KIND; else the codes of
 *         netshm_hashtbl_find().
 */
int netshm_table_find_all(netshm_table *t, int32_t key, netshm_words **vals, size_t *n);

/**
 * Counts all bindings, hidden ones included, as netshm_hashtbl_length() does.
 *
 * @param t  The table.
 * @param n  Receives the number.
 *
 * @return NETSHM_OK; NETSHM_E_KIND; else the codes of netshm_hashtbl_length().
 */
int netshm_table_length(netshm_table *t, uint64_t *n);

/**
 * Calls a callback with every binding, keys in any order, the bindings of one key newest first. It sees what
 * netshm_hashtbl_iter() sees.
 *
 * @param t    The table.
 * @param fn   The callback.
 * @param arg  Handed to the callback.
 *
 * @return NETSHM_OK, also if the callback stopped it; the callback's negative answer; NETSHM_E_CALLBACK;
 *         NETSHM_E_KIND; else the codes of netshm_hashtbl_find().
 */
int netshm_table_iter(netshm_table *t, netshm_words_fn fn, void *arg);

/** Calls a callback with every key once. Else it is like netshm_table_iter(). */
int netshm_table_iter_keys(netshm_table *t, netshm_words_fn fn, void *arg);

/**
 * Shows all bindings of a key to a callback, newest first, fragment by fragment. It sees copies of what was there at
 * one moment, and may call everything.
 *
 * @param t    The table.
 * @param key  The key. If it has no binding, the callback is not called.
 * @param fn   The callback.
 * @param arg  Handed to the callback.
 *
 * @return NETSHM_OK, also if the callback ended it; its negative answer; NETSHM_E_CALLBACK, it answered with
 *         #NETSHM_BLOCK_REMOVE, or with a reserved negative number; NETSHM_E_KIND; else the codes of
 *         netshm_hashtbl_find().
 */
int netshm_table_read_blocks(netshm_table *t,
                             int32_t key,
                             netshm_block_fn fn,
                             void *arg);

/**
 * Shows all bindings of a key to a callback while the key is locked for writing, and makes the changes that it wants.
 *
 * The fragments are copies, to which the callback may assign; and it may answer that a binding be removed, be it the
 * newest or not. All changes and removals are made together when the call returns, also if the callback has ended
 * it by #NETSHM_BLOCK_BREAK or left bindings by #NETSHM_BLOCK_NEXT.
 *
 * The callback runs on the calling thread; it should be quick. In it, changing the same object by any handle, everything
 * that belongs to a group on it, and netshm_sync(), netshm_backup(), netshm_check() and netshm_table_dump() of it give
 * NETSHM_E_IN_CALLBACK; finding outside of groups shows what was there before. Other objects can be used.
 *
 * @param t          The table.
 * @param announced  What the callback may answer besides where to go on: 0 or #NETSHM_BLOCK_REMOVE.
 * @param key        The key. If it has no binding, the callback is not called.
 * @param fn         The callback.
 * @param arg        Handed to the callback.
 *
 * @return NETSHM_OK. Else nothing has changed: the callback's negative answer; NETSHM_E_CALLBACK, it answered
 *         with what was not announced, or with a reserved negative number; else the codes of netshm_table_add().
 */
int netshm_table_write_blocks(netshm_table *t,
                              uint32_t announced,
                              int32_t key,
                              netshm_block_fn fn,
                              void *arg);

/**
 * Gives the internals of a table of any kind as text, for debugging. Its form may change with every version.
 *
 * Other writers are kept out meanwhile, in a group until it ends. A table open for reading only is looked at without
 * that, and may change in between.
 *
 * @param t     The table.
 * @param text  Receives the text, NUL-terminated, to be freed by netshm_free().
 *
 * @return NETSHM_OK; NETSHM_E_CORRUPT; NETSHM_E_STALE; NETSHM_E_TIMEOUT; NETSHM_E_DEADLOCK, in a group;
 *         NETSHM_E_IN_CALLBACK, from an update of the same object; NETSHM_E_FORKED, in a child whose parent has a group
 *         open; NETSHM_E_NO_MEMORY; NETSHM_E_INVALID; NETSHM_E_CLOSED.
 */
int netshm_table_dump(netshm_table *t,
                      char **text);

/* ---- Groups ---------------------------------------------------------------------------------------------- */

/** Answer of a group's callback: undo everything. So does every unknown answer. */
#define NETSHM_ROLLBACK 0
/** Answer of a group's callback: make all changes permanent. */
#define NETSHM_COMMIT 1

/** An open group. Ended by netshm_group_commit() or netshm_group_abort(). */
typedef struct netshm_txn netshm_txn;

/**
 * Does the operations of a group, with the handles of its object, on the calling thread.
 *
 * @param txn  The group; it ends with the callback, which cannot end, restart or detach it.
 * @param arg  What was given to the call.
 *
 * @return #NETSHM_COMMIT or #NETSHM_ROLLBACK; or a negative number: everything is undone, and the call fails with
 *         it (see "Callbacks" at the top).
 */
typedef int (*netshm_group_fn)(netshm_txn *txn, void *arg);

/**
 * Runs a callback as a group: all that it does on the table's object, on this thread, happens, or nothing.
 *
 * Nobody else sees anything of it before it ends. Within a group of the same object it is an inner group, which
 * can be undone alone. What a group has changed or read stays locked until it ends; several keys share a lock, so
 * that others may have to wait also with other keys. Finding outside of groups never waits for a group. Two
 * objects are never changed together: a group covers one.
 *
 * @param t    The table, see netshm_hashtbl_table().
 * @param fn   The callback.
 * @param arg  Handed to the callback.
 *
 * @return NETSHM_OK, it is done. Else nothing has happened: NETSHM_E_ABORTED, the callback answered
 *         NETSHM_ROLLBACK; its negative answer; NETSHM_E_CALLBACK; NETSHM_E_DEADLOCK, it had to give way to another
 *         group: try again, if this is the outermost group; NETSHM_E_READ_ONLY; NETSHM_E_NO_SPACE; NETSHM_E_BUSY;
 *         NETSHM_E_TIMEOUT; NETSHM_E_CORRUPT; NETSHM_E_FORKED, the callback returned in a forked child;
 *         NETSHM_E_IN_CALLBACK; NETSHM_E_INVALID; NETSHM_E_CLOSED.
 */
int netshm_group(netshm_table *t,
                 netshm_group_fn fn,
                 void *arg);

/**
 * Runs a callback as a group, and runs it again each time the group has to give way to another one.
 *
 * Between the attempts it pauses for a random time, and the group keeps its age: the oldest one always gets
 * through.
 *
 * @param t           The table, see netshm_hashtbl_table().
 * @param timeout_ns  No new attempt is made when so many nanoseconds have passed; negative: no limit.
 * @param fn          The callback. It runs several times: what it does outside of the object must bear that.
 * @param arg         Handed to the callback.
 *
 * @return As netshm_group(). NETSHM_E_DEADLOCK: the time is over, or it is an inner group, and the outermost one
 *         has to begin again.
 */
int netshm_group_retry(netshm_table *t,
                       int64_t timeout_ns,
                       netshm_group_fn fn,
                       void *arg);

/**
 * Begins a group, or an inner group if one is open on this thread.
 *
 * Until it ends, the operations of this thread on the object belong to it. If the process dies, nothing of it
 * has happened. So it is where the thread ends and no destructor of its thread-local data ends the group, unless it was begun in the
 * last of these; the handle, which nobody can use any more, then keeps its memory and the object's mapping.
 *
 * @param t    The table, see netshm_hashtbl_table().
 * @param out  Receives the group.
 *
 * @return NETSHM_OK; NETSHM_E_DEADLOCK, the enclosing group has to give way; NETSHM_E_READ_ONLY; NETSHM_E_BUSY;
 *         NETSHM_E_CORRUPT; NETSHM_E_FORKED; NETSHM_E_IN_CALLBACK; NETSHM_E_INVALID; NETSHM_E_CLOSED.
 */
int netshm_group_begin(netshm_table *t,
                       netshm_txn **out);

/**
 * Makes the changes of a group permanent, all at once; those of an inner group as part of the enclosing one.
 *
 * Inner groups that are still open are undone: what they have changed is dropped, this call gives NETSHM_OK for the
 * rest, and their own ends give NETSHM_E_ABORTED. So end inner groups first.
 *
 * @param x  The group. It ends and its handle is freed, whatever is returned, with these exceptions:
 *           NETSHM_E_IN_GROUP, NETSHM_E_IN_CALLBACK, NETSHM_E_BUSY, NETSHM_E_INVALID, NETSHM_E_CLOSED.
 *
 * @return NETSHM_OK. Else nothing has happened: NETSHM_E_DEADLOCK, it had to give way to another group;
 *         NETSHM_E_NO_SPACE; NETSHM_E_TIMEOUT; NETSHM_E_CORRUPT; NETSHM_E_ABORTED, the enclosing group has ended
 *         before it; NETSHM_E_FORKED, it is the parent's; NETSHM_E_IN_GROUP, it is another thread's, or detached; NETSHM_E_IN_CALLBACK, it is under way in
 *         an operation, or netshm_group() has it; NETSHM_E_BUSY, another thread is using the handle;
 *         NETSHM_E_INVALID; NETSHM_E_CLOSED.
 */
int netshm_group_commit(netshm_txn *x);

/**
 * Undoes a group. A detached group can be undone by any thread.
 *
 * After a deadlock it takes 50 us, with #NETSHM_LOCK_RECORD 3 ms: those to whom the group has given way go on meanwhile.
 *
 * @param x  The group; NULL is OK. It ends as with netshm_group_commit().
 *
 * @return As netshm_group_commit(), but never NETSHM_E_NO_SPACE, and NETSHM_E_DEADLOCK only where somebody damages the
 *         object.
 */
int netshm_group_abort(netshm_txn *x);

/**
 * After NETSHM_E_DEADLOCK: undoes everything, waits a moment, and begins again as the same group.
 *
 * The group keeps its age, so that others give way to it sooner or later.
 *
 * @param x  The group, which stays open whatever is returned.
 *
 * @return NETSHM_OK; NETSHM_E_IN_GROUP, it is an inner group, another thread's, or detached; NETSHM_E_FORKED;
 *         NETSHM_E_ABORTED; NETSHM_E_TIMEOUT; NETSHM_E_CORRUPT; NETSHM_E_IN_CALLBACK; NETSHM_E_BUSY;
 *         NETSHM_E_INVALID; NETSHM_E_CLOSED.
 */
int netshm_group_restart(netshm_txn *x);

/**
 * Takes a group off this thread, so that another thread can attach it. Its inner groups must have ended.
 *
 * @param x  The group, which stays open whatever is returned.
 *
 * @return NETSHM_OK; NETSHM_E_IN_GROUP, it is an inner group, another thread's, or detached already;
 *         NETSHM_E_FORKED; NETSHM_E_ABORTED; NETSHM_E_IN_CALLBACK; NETSHM_E_BUSY; NETSHM_E_INVALID; NETSHM_E_CLOSED.
 */
int netshm_group_detach(netshm_txn *x);

/**
 * Makes a detached group the calling thread's.
 *
 * @param x  The group, which stays detached if the call fails.
 *
 * @return NETSHM_OK; NETSHM_E_IN_GROUP, another group on the same object is open on this thread, or it is not
 *         detached; NETSHM_E_FORKED; NETSHM_E_IN_CALLBACK; NETSHM_E_BUSY; NETSHM_E_INVALID; NETSHM_E_CLOSED.
 */
int netshm_group_attach(netshm_txn *x);

/* ---- Waiting for change ---------------------------------------------------------------------------------- */

/**
 * Gives the present stamp of a key, bound or not, for netshm_hashtbl_wait().
 *
 * Whenever a binding of the key is added, replaced or removed, the key gets another stamp; it may get another one
 * although nothing has happened to it. A stamp means something for its key and its object only, in any process;
 * 0 is none. Take the stamp first, read afterwards, then wait: what changes in between ends the wait at once.
 *
 * @param t        The table; safe to use from several threads.
 * @param key      The key; may be NULL only if key_len is 0.
 * @param key_len  Its length in bytes.
 * @param stamp    Receives the stamp. In a group, it is that of what others see.
 *
 * @return NETSHM_OK; else the codes of netshm_hashtbl_find() but NETSHM_E_NOT_FOUND and NETSHM_E_TOO_SMALL.
 */
int netshm_hashtbl_stamp(netshm_hashtbl *t,
                         const void *key,
                         size_t key_len,
                         uint64_t *stamp);

/**
 * Waits until the bindings of a key may have changed since a stamp.
 *
 * It may end early, without a change; it does not end late: a commit wakes all who wait, in whatever process. Two
 * things may be noticed after 50 ms only: that a large table was re-initialised, and a change by a process that was
 * killed before it could wake anybody. It does not poll, except that on an object that is open for reading only,
 * or whose locking method is not #NETSHM_LOCK_FUTEX, it looks every 5 ms. Nothing is locked meanwhile.
 *
 * Signals of the calling thread are held back while it looks, and handled when it sleeps, so that hardly any is missed. A
 * handler that has run just before the call is not noticed: who waits for what a handler says should set a time-out.
 *
 * @param t           The table; any number of threads may wait, also for the same key. It may be closed meanwhile.
 * @param key         The key; may be NULL only if key_len is 0.
 * @param key_len     Its length in bytes.
 * @param stamp       The stamp from netshm_hashtbl_stamp() or from the last wait; 0 ends the wait at once.
 *                    Receives the new stamp, if the call succeeds.
 * @param timeout_ns  Longest wait in nanoseconds; 0 only looks, a negative number sets no limit.
 *
 * @return NETSHM_OK, there may be a change; NETSHM_E_TIMEOUT, there was none in time; NETSHM_E_INTERRUPTED, a signal
 *         handler has run in this thread meanwhile; NETSHM_E_IN_GROUP and NETSHM_E_IN_CALLBACK, where a
 *         change could not come for the caller's own sake; NETSHM_E_STALE, the object holds no such table any
 *         more; NETSHM_E_FORKED, NETSHM_E_BUSY, NETSHM_E_CORRUPT, NETSHM_E_INVALID, NETSHM_E_CLOSED,
 *         NETSHM_E_SYSTEM.
 */
int netshm_hashtbl_wait(netshm_hashtbl *t,
                        const void *key,
                        size_t key_len,
                        uint64_t *stamp,
                        int64_t timeout_ns);

/**
 * Gives the present stamp of a key of any type; else it is like netshm_hashtbl_stamp().
 *
 * @param t      The table; safe to use from several threads.
 * @param key    The cells of the key.
 * @param nk     Their number.
 * @param stamp  Receives the stamp.
 *
 * @return As netshm_hashtbl_stamp(); NETSHM_E_TYPE, NETSHM_E_OVERFLOW and a custom type's answer as for
 *         netshm_hashtbl_find_v().
 */
int netshm_hashtbl_stamp_v(netshm_hashtbl *t, const netshm_value *key, size_t nk, uint64_t *stamp);

/**
 * Waits until the bindings of a key of any type may have changed since a stamp; else it is like
 * netshm_hashtbl_wait().
 *
 * @param t           The table; any number of threads may wait, also for the same key. It may be closed meanwhile.
 * @param key         The cells of the key.
 * @param nk          Their number.
 * @param stamp       The stamp, as for netshm_hashtbl_wait().
 * @param timeout_ns  Longest wait in nanoseconds; 0 only looks, a negative number sets no limit.
 *
 * @return As netshm_hashtbl_wait(); NETSHM_E_TYPE, NETSHM_E_OVERFLOW and a custom type's answer as for
 *         netshm_hashtbl_find_v().
 */
int netshm_hashtbl_wait_v(netshm_hashtbl *t,
                          const netshm_value *key,
                          size_t nk,
                          uint64_t *stamp,
                          int64_t timeout_ns);

/* ---- Checking -------------------------------------------------------------------------------------------- */

/** Damage: the first bytes are not those of a netshm object. */
#define NETSHM_DAMAGE_MAGIC 1
/** Damage: the file ends before the memory that its header describes. */
#define NETSHM_DAMAGE_TRUNCATED 2
/** Damage: a header field has an impossible value. */
#define NETSHM_DAMAGE_HEADER 3
/** Damage: the machine went down while the object was in use, and it has not been checked since: see netshm_check(). */
#define NETSHM_DAMAGE_UNCLEAN 4
/** Damage: a lock word names an owner that does not hold it, or has unknown bits. */
#define NETSHM_DAMAGE_STRAY_LOCK 5
/** Damage: a slot is not idle, or one of its fields is impossible. */
#define NETSHM_DAMAGE_SLOT 6
/** Damage: a redo log is not empty, or one of its records is impossible. */
#define NETSHM_DAMAGE_LOG 7
/** Damage: a page descriptor contradicts its neighbours. */
#define NETSHM_DAMAGE_PAGE_MAP 8
/** Damage: a free list is broken. */
#define NETSHM_DAMAGE_FREE_LIST 9
/** Damage: a slab's descriptor, bitmap or list is wrong. */
#define NETSHM_DAMAGE_SLAB 10
/** Damage: a block in use is marked free, or lies where no block can be. */
#define NETSHM_DAMAGE_NOT_ALLOCATED 11
/** Damage: a block is marked in use and nothing refers to it. */
#define NETSHM_DAMAGE_LEAKED 12
/** Damage: a block is referred to twice. */
#define NETSHM_DAMAGE_TWICE 13
/** Damage: a table root has an impossible field. */
#define NETSHM_DAMAGE_ROOT 14
/** Damage: a bucket's level contradicts its place. */
#define NETSHM_DAMAGE_LEVEL 15
/** Damage: a bucket's entry, tag or overflow link is wrong. */
#define NETSHM_DAMAGE_BUCKET 16
/** Damage: a record's lengths, key or chain are impossible. */
#define NETSHM_DAMAGE_RECORD 17
/** Damage: a key lies where no find would look. */
#define NETSHM_DAMAGE_MISPLACED 18
/** Damage: a counter differs from what is there. */
#define NETSHM_DAMAGE_COUNT 19
/** Damage: the bytes of a typed key or value do not decode. Found by typed calls; no finding of a check. */
#define NETSHM_DAMAGE_ENCODING 20
/** Damage: a key or value is not what its checksum was made of; in objects with checksums, see #NETSHM_CHECKSUMS. */
#define NETSHM_DAMAGE_CHECKSUM 21

/**
 * Hears of one damage. Calls on the same object give NETSHM_E_IN_CALLBACK.
 *
 * @param what    One of the NETSHM_DAMAGE_ numbers; others may come.
 * @param offset  Byte offset in the object of the word that is wrong.
 * @param text    The details, for humans; it lives while the callback runs.
 * @param arg     What was given to the call.
 *
 * @return #NETSHM_CONTINUE or #NETSHM_STOP; or a negative number: the check stops and the call fails with it (see
 *         "Callbacks" at the top).
 */
typedef int (*netshm_damage_fn)(int what, int64_t offset, const char *text, void *arg);

/**
 * Verifies every invariant of an object's structure. Nothing is repaired.
 *
 * If the object is open for writing, what dead processes have left is put in order first, and all writers are
 * kept out meanwhile. If it is open for reading only, changes under way may look like damage.
 *
 * An object in a file that the machine went down with while it was in use, and not at rest after netshm_sync(), may hold
 * any mixture of what was stored since it was last in order. All other calls refuse it, with #NETSHM_E_CORRUPT and
 * #NETSHM_DAMAGE_UNCLEAN. If the check finds no damage in its structure, and it is open for writing, it can be
 * used from then on, in all processes: it has what was synced last, and of later changes some, of a group perhaps a part.
 * If there is damage, it stays refused.
 *
 * @param o      The object.
 * @param flags  Reserved: 0.
 * @param fn     Called for each damage; may be NULL.
 * @param arg    Handed to the callback.
 *
 * @return NETSHM_OK, there is no damage, or the object is empty; NETSHM_E_CORRUPT, there is, the first one is told by
 *         netshm_last_error(); the callback's negative answer; NETSHM_E_CALLBACK; NETSHM_E_IN_GROUP;
 *         NETSHM_E_IN_CALLBACK, from an update of the same object; NETSHM_E_FORKED, in a child whose parent has a group
 *         open; NETSHM_E_TIMEOUT, others could not be kept out in the netshm_options.lock_timeout_ms that was given last
 *         with this handle of the object; NETSHM_E_DEADLOCK, only where somebody damages the object; NETSHM_E_BUSY;
 *         NETSHM_E_INVALID; NETSHM_E_CLOSED.
 */
int netshm_check(netshm_object *o,
                 uint32_t flags,
                 netshm_damage_fn fn,
                 void *arg);

/* ---- Backup and salvage ---------------------------------------------------------------------------------- */

/**
 * Flag of netshm_backup() and netshm_salvage(): an object of the new name may exist, and is replaced. Whoever uses it goes
 * on with the old one.
 */
#define NETSHM_REPLACE 1

/**
 * What netshm_salvage() has saved, and what not.
 *
 * Set `size` to `sizeof(netshm_salvaged)` before the call; the structure may grow at its end.
 */
typedef struct netshm_salvaged {
    /** Size of this structure in bytes, set by the caller. */
    size_t size;
    /** Tables and arrays found, the unnamed one included. */
    uint64_t tables;
    /** Tables of which nothing is left, because their roots or what refers to these is damaged. */
    uint64_t tables_lost;
    /** Bindings saved; of an array, parts. */
    uint64_t bindings;
    /** Bindings that are known to be lost. Behind each there may be older ones of the same key. */
    uint64_t bindings_lost;
    /** Buckets that cannot be read or are damaged: what they referred to is not known. */
    uint64_t buckets_lost;
    /** How many bindings the tables had by their own count, about; UINT64_MAX if that cannot be read. */
    uint64_t bindings_counted;
} netshm_salvaged;

/**
 * Copies an object to a new name, as it is at one moment, while others go on.
 *
 * The object is copied while everybody works, what has changed meanwhile is copied again, and at the end, for a short time,
 * writers are kept out while the object is compared with the copy and the rest is brought over: about 0.6 s for each GiB of
 * the object on a modest machine, longer if others need its processors or the files are not in memory. Readers are never
 * kept out. The copy is an object of its
 * own, closed in order, and on its device; it gets its name when it is finished, so that there is never a half one.
 * If the call fails, or its process is killed, nothing is left (where the file system knows files without names; elsewhere a
 * kill leaves a hidden file beside, and so it does everywhere if it hits the moment in which an object is replaced).
 *
 * Under the locking method NONE nobody is kept out: the object has to be quiet.
 *
 * @param o           The object, open for writing: else writers could not be kept out.
 * @param kind        #NETSHM_POSIX or #NETSHM_FILE, whatever the kind of the object.
 * @param file_name   As for netshm_open().
 * @param mem_name    As for netshm_open().
 * @param mode        Permissions of the copy, as for open(2). The umask is honoured.
 * @param flags       0 or #NETSHM_REPLACE.
 * @param timeout_ms  Longest wait for groups that are open, in milliseconds. 0: no limit; negative: no waiting.
 * @param stopped_ns  Receives the time for which writers were kept out, in nanoseconds; may be NULL.
 *
 * @return NETSHM_OK; NETSHM_E_EXISTS; NETSHM_E_NOT_FOUND, the object is empty, or there is no such directory;
 *         NETSHM_E_NO_SPACE; NETSHM_E_TIMEOUT; NETSHM_E_DEADLOCK, only where somebody damages the object;
 *         NETSHM_E_IN_GROUP; NETSHM_E_IN_CALLBACK, from an update of the same object;
 *         NETSHM_E_FORKED, in a child whose parent has a group open; NETSHM_E_READ_ONLY; NETSHM_E_PERMISSION;
 *         NETSHM_E_KIND, the management file is about another memory object; NETSHM_E_CORRUPT, the object's structure is
 *         damaged; NETSHM_E_INVALID, also for the object's own name; NETSHM_E_CLOSED; NETSHM_E_SYSTEM.
 */
int netshm_backup(netshm_object *o,
                  int kind,
                  const char *file_name,
                  const char *mem_name,
                  uint32_t mode,
                  uint32_t flags,
                  int32_t timeout_ms,
                  uint64_t *stopped_ns);

/**
 * Copies every binding whose record and chain are undamaged from an object into a new one. The damaged object is only read,
 * without locks, and by system calls, so that nothing in it can do harm; nobody should be using it.
 *
 * Tables and arrays keep their names, types, default values and lengths, and the bindings of a key their order. A binding
 * is saved if its key, by its hash, belongs where it was found, and its record is plausible. That the bytes of its
 * value are those that were stored is known only if the object has checksums. The new object has the same locking method
 * and hashing, and no maximum size; it gets its name when it is finished.
 *
 * @param kind          #NETSHM_POSIX or #NETSHM_FILE: the damaged object's.
 * @param file_name     Its name, as for netshm_open().
 * @param mem_name      Its name, as for netshm_open().
 * @param to_kind       #NETSHM_POSIX or #NETSHM_FILE: the new object's.
 * @param to_file_name  Its name, as for netshm_open().
 * @param to_mem_name   Its name, as for netshm_open().
 * @param mode          Permissions of the new object, as for open(2). The umask is honoured.
 * @param flags         0 or #NETSHM_REPLACE.
 * @param report        Receives what was saved and lost; may be NULL. Its field `size` is set by the caller.
 *
 * @return NETSHM_OK, whatever was lost; NETSHM_E_CORRUPT, the header is damaged, so that no key can be recognised;
 *         NETSHM_E_NEWER; NETSHM_E_NOT_FOUND; NETSHM_E_EXISTS; NETSHM_E_PERMISSION; NETSHM_E_NO_SPACE; NETSHM_E_KIND;
 *         NETSHM_E_INVALID; NETSHM_E_SYSTEM.
 */
int netshm_salvage(int kind,
                   const char *file_name,
                   const char *mem_name,
                   int to_kind,
                   const char *to_file_name,
                   const char *to_mem_name,
                   uint32_t mode,
                   uint32_t flags,
                   netshm_salvaged *report);

/* ---- Finding and deleting what is left ------------------------------------------------------------------- */

/** Kind of persistent object: a file. */
#define NETSHM_PM_FILE 1
/** Kind of persistent object: POSIX shared memory. */
#define NETSHM_PM_POSIX_SHM 2
/** Kind of persistent object: a named POSIX semaphore. */
#define NETSHM_PM_POSIX_SEM 3

/**
 * Kind of persistent object: a container of semaphores, as Ocamlnet's Netsys_sem makes them. The path `p` stands
 * for the POSIX shared memory `p_sems` and the named semaphores `p_contsem` and `p_sem0` to `p_sem16383`.
 */
#define NETSHM_PM_SEM_CONT 4

/**
 * A list of persistent kernel objects: files, POSIX shared memory, semaphores. It serves to find and delete what
 * crashed programs have left. Closed by netshm_pmanage_close().
 *
 * The list is a text file, or in memory only. The file is interchangeable with those of Ocamlnet's
 * Netsys_pmanage, whose lines are `R KIND "path"` and `U KIND "path"`; the management file of a POSIX shared
 * memory object is such a list. All threads and processes may use it at once: every call locks the whole file
 * in the manner of lockf, for as long as it takes.
 */
typedef struct netshm_pmanage netshm_pmanage;

/**
 * Makes a handle for a list.
 *
 * The file is looked at by the other calls only. It is created, for its owner only, when something is registered.
 *
 * @param path  The absolute path of the file; NULL for a list that is in memory only, and belongs to the handle. A
 *              forked child has a copy of such a list.
 * @param out   Receives the handle.
 *
 * @return NETSHM_OK; NETSHM_E_INVALID, the path is not absolute, or out is NULL.
 */
int netshm_pmanage_open(const char *path,
                        netshm_pmanage **out);

/**
 * Registers an object. It need not exist; that it is registered already is no error.
 *
 * @param p     The list; safe to use from several threads.
 * @param kind  #NETSHM_PM_FILE, #NETSHM_PM_POSIX_SHM, #NETSHM_PM_POSIX_SEM or #NETSHM_PM_SEM_CONT.
 * @param path  The object's name, which must be an absolute path, or look like one.
 *
 * @return NETSHM_OK; NETSHM_E_INVALID, an unknown kind, the path is not absolute, or the list's file is not a
 *         regular one; NETSHM_E_CORRUPT, the file has a line that is not understood: the text of
 *         netshm_last_error() gives its number, `offset` its beginning; NETSHM_E_TIMEOUT, another program keeps
 *         the file locked; NETSHM_E_PERMISSION, NETSHM_E_READ_ONLY, NETSHM_E_NOT_FOUND, there is no such
 *         directory; NETSHM_E_NO_SPACE, NETSHM_E_TOO_LARGE, NETSHM_E_BUSY, NETSHM_E_UNSUPPORTED, NETSHM_E_CLOSED,
 *         NETSHM_E_SYSTEM. Nothing has changed then.
 */
int netshm_pmanage_register(netshm_pmanage *p,
                            int kind,
                            const char *path);

/**
 * Unregisters an object, without deleting it; that it is not registered is no error.
 *
 * Parameters and return codes are those of netshm_pmanage_register().
 */
int netshm_pmanage_unregister(netshm_pmanage *p, int kind, const char *path);

/**
 * Registers several objects by one change of the list: all of them or, on an error, none.
 *
 * @param p      The list.
 * @param kinds  Their kinds, n of them; may be NULL only if n is 0.
 * @param path   Their paths, n of them; may be NULL only if n is 0.
 * @param n      Their number.
 *
 * @return The codes of netshm_pmanage_register().
 */
int netshm_pmanage_register_many(netshm_pmanage *p,
                                 const int *kinds,
                                 const char *const *path,
                                 size_t n);

/**
 * Lists what is registered, each object once, sorted by kind and path.
 *
 * @param p      The list.
 * @param kinds  Receives the kinds, n of them, in a block for netshm_free(); NULL if n is 0.
 * @param paths  Receives the paths, n of them, in one block for netshm_free(), strings included; NULL if n is 0.
 *               Relative ones may be among them, if another program has registered them.
 * @param n      Receives their number.
 *
 * @return NETSHM_OK, also if the file is missing; NETSHM_E_UNSUPPORTED, another program has registered a path with
 *         a NUL byte; NETSHM_E_NO_MEMORY; else the codes of netshm_pmanage_register().
 */
int netshm_pmanage_list(netshm_pmanage *p,
                        int **kinds,
                        char ***paths,
                        size_t *n);

/**
 * Deletes every registered object and empties the list. Failures to delete single objects are ignored, and relative
 * paths, which another program may have registered, are left alone.
 *
 * The list is emptied in the end: should the process die on the way, all is still registered.
 *
 * @param p  The list.
 *
 * @return NETSHM_OK, also if the file is missing; NETSHM_E_PERMISSION, also if the list is neither the calling user's nor root's,
 *         since deleting is done with the caller's rights; else the codes of netshm_pmanage_register().
 */
int netshm_pmanage_unlink(netshm_pmanage *p);

/**
 * Deletes one object, whether it is registered somewhere or not, as netshm_pmanage_unlink() does with those of a
 * list. A failure to delete it is ignored.
 *
 * @param kind  #NETSHM_PM_FILE, #NETSHM_PM_POSIX_SHM, #NETSHM_PM_POSIX_SEM or #NETSHM_PM_SEM_CONT.
 * @param path  The object's name, which must be an absolute path, or look like one.
 *
 * @return NETSHM_OK; NETSHM_E_INVALID, an unknown kind, or the path is not absolute.
 */
int netshm_pmanage_unlink_this(int kind,
                               const char *path);

/**
 * Closes a list's handle. The file stays as it is; a list in memory is gone.
 *
 * @param p  The handle; NULL is OK.
 *
 * @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type.
 */
int netshm_pmanage_close(netshm_pmanage *p);

#ifdef __cplusplus
}
#endif

#endif /* NETSHM_H */
