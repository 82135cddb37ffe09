(* The reference's side of the test of lists: pmanage LIST, with commands from standard input.
 *   register KIND PATH ..., unregister KIND PATH, list, unlink, open MEMORY
 * Paths are in the form of Hex. What ours_pmanage.c does with the same commands must be the same. *)

let named kind path =
  match kind with
  | "FILE" -> `File path
  | "POSIX_SHM" -> `Posix_shm path
  | "POSIX_SEM" -> `Posix_sem path
  | "SEM_CONT" -> `Sem_cont path
  | other -> failwith ("kind " ^ other)

let rec objects = function
  | kind :: path :: more -> named kind (Hex.to_string path) :: objects more
  | _ -> []

let unregister list = function
  | `File p -> list # unregister_file p
  | `Posix_shm p -> list # unregister_posix_shm p
  | `Posix_sem p -> list # unregister_posix_sem p
  | `Sem_cont p -> list # unregister_sem_cont p

let print = function
  | `File p -> print_endline ("FILE " ^ Hex.of_string p)
  | `Posix_shm p -> print_endline ("POSIX_SHM " ^ Hex.of_string p)
  | `Posix_sem p -> print_endline ("POSIX_SEM " ^ Hex.of_string p)
  | `Sem_cont p -> print_endline ("SEM_CONT " ^ Hex.of_string p)

let () =
  let file = Sys.argv.(1) in
  let list = Netsys_pmanage.pmanage file in
  Hex.lines stdin (function
    | "register" :: named -> list # register (objects named)
    | "unregister" :: named -> List.iter (unregister list) (objects named)
    | [ "list" ] -> List.iter print list # registered
    | [ "unlink" ] -> list # unlink ()
    | [ "open"; memory ] ->
        Netshm.close_shm (Netshm.open_shm (`POSIX (file, memory)) [ Unix.O_RDWR; Unix.O_CREAT ] 0o600)
    | other -> failwith (String.concat " " other))
