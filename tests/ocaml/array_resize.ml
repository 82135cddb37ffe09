(* Shows that the reference as released cannot resize an array, nor make one of a given length: array_resize OBJECT
 * OBJECT. What it prints is quoted in docs/reference.md. *)

let attempt what f =
  print_endline (what ^ ": " ^ try f (); "done" with Failure why -> why)

let () =
  let opened n = Netshm.open_shm (`File Sys.argv.(n)) [ Unix.O_RDWR; Unix.O_CREAT ] 0o600 in
  let manage ?init n = Netshm_array.manage ?init 0 Netshm_data.int_manager `Record_locking (opened n) in
  let a = manage 1 in
  Printf.printf "length: %d\n" (Netshm_array.length a);
  attempt "resize to 10" (fun () -> Netshm_array.resize a 10);
  attempt "manage with 10 elements" (fun () -> ignore (manage ~init:10 2))
