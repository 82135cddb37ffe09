(* The reference itself, Ocamlnet's Netshm_hashtbl, driven through a pipe: see sys_ocamlnet.cpp.
 *
 * Commands, one a line: `create FILE KEYS` (KEYS 0: size not given), `open FILE`, `run SCRIPT FROM TO SECONDS`,
 * `go-on FROM TO SECONDS` with the script of the last run, `iterate`.
 * Answers, one a line: `NANOSECONDS DONE SUM`, or `failed TEXT`. A run stops after SECONDS, and says how many steps
 * were done: several processes whose groups give way to each other may never come to an end. *)

type script =
  { steps : Bytes.t; numbers : int array; keys : string array; width : int; value_size : int; version : int
  ; exact : bool; delta : int64 }

let stamp_of number version = Int64.logor (Int64.of_int number) (Int64.shift_left (Int64.of_int version) 48)
let number_of stamp = Int64.to_int (Int64.logand stamp 0xffff_ffff_ffffL)
let first_word s = Bytes.get_int64_le (Bytes.unsafe_of_string s) 0
let last_word s = Bytes.get_int64_le (Bytes.unsafe_of_string s) (String.length s - 8)

let body size = Bytes.init size (fun i -> Char.unsafe_chr ((i * 7 + (i lsr 8)) land 255))

let set_stamp bytes stamp =
  Bytes.set_int64_le bytes 0 stamp;
  Bytes.set_int64_le bytes (Bytes.length bytes - 8) stamp

let read_script name =
  let channel = open_in_bin name in
  let script =
    Scanf.sscanf (input_line channel) "%d %d %d %d %d %d %Ld"
      (fun n width key_size value_size version exact delta ->
        let steps = Bytes.create n in
        really_input channel steps 0 n;
        let word = Bytes.create 8 in
        let number _ = really_input channel word 0 8; Int64.to_int (Bytes.get_int64_le word 0) in
        let numbers = Array.init (n * width) number in
        let keys = Array.init (n * width) (fun _ -> really_input_string channel key_size) in
        { steps; numbers; keys; width; value_size; version; exact = exact <> 0; delta }) in
  close_in channel;
  script

let check script i value =
  let stamp = if String.length value = script.value_size then first_word value else -1L in
  if number_of stamp <> script.numbers.(i) || last_word value <> stamp
     || (script.exact && stamp <> stamp_of script.numbers.(i) script.version)
  then failwith (Printf.sprintf "wrong value for key %d" script.numbers.(i))

exception Too_late
let deadline = ref 0.

(* Reads, raises and writes values as one group. Groups of several processes may have to give way. *)
let rec raise_together table keys delta =
  let open Netshm_hashtbl in
  let raise_one key =
    let value = Bytes.of_string (try find table key with Not_found -> String.make 8 '\000') in
    set_stamp value (Int64.add (Bytes.get_int64_le value 0) delta);
    replace table key (Bytes.to_string value);
    Bytes.get_int64_le value 0 in
  match Netshm.group (shm_table table) (fun () -> List.fold_left (fun _ key -> raise_one key) 0L keys) () with
  | last -> last
  | exception Netshm.Deadlock ->
      if Unix.gettimeofday () > !deadline then raise Too_late;
      raise_together table keys delta

let perform table script value sum i =
  let open Netshm_hashtbl in
  let key = script.keys.(i) in
  let new_value () =
    set_stamp value (stamp_of script.numbers.(i) script.version);
    Bytes.to_string value in
  match Char.code (Bytes.get script.steps i) with
  | 0 -> check script i (find table key)
  | 1 -> if (match find table key with _ -> true | exception Not_found -> false) then failwith "an absent key was found"
  | 2 -> add table key (new_value ())
  | 3 -> replace table key (new_value ())
  | 4 -> remove table key
  | 5 -> sum := Int64.add !sum (raise_together table [ key ] script.delta)
  | 6 -> ignore (raise_together table [ key ] script.delta)
  | 7 ->
      let keys = List.init script.width (fun k -> script.keys.(i * script.width + k)) in
      ignore (raise_together table keys script.delta)
  | _ -> failwith "no such step"

let answer seconds n sum = Printf.printf "%.0f %d %Ld\n%!" (seconds *. 1e9) n sum

let run table script first last seconds =
  let value = body script.value_size and sum = ref 0L in
  let start = Unix.gettimeofday () in
  deadline := start +. float_of_string seconds;
  let rec go i =
    if i < last && Unix.gettimeofday () < !deadline then
      match perform table script value sum i with
      | () -> go (i + 1)
      | exception Too_late -> i
    else i in
  let stopped = go first in
  answer (Unix.gettimeofday () -. start) (stopped - first) !sum

let iterate table =
  let count = ref 0 and sum = ref 0 and start = Unix.gettimeofday () in
  let see _ value =
    if last_word value <> first_word value then failwith "a wrong value was iterated";
    incr count;
    sum := !sum + number_of (first_word value) in
  Netshm_hashtbl.iter see table;
  answer (Unix.gettimeofday () -. start) !count (Int64.of_int !sum)

let manage ?init file flags =
  let m = Netshm_data.string_manager in
  Netshm_hashtbl.manage ?init m m `Record_locking (Netshm.open_shm (`File file) flags 0o600)

let () =
  let table = ref None and script = ref None in
  let get () = Option.get !table in
  let command = function
    | [ "create"; file; "0" ] -> table := Some (manage file [ Unix.O_RDWR; Unix.O_CREAT ]); answer 0. 0 0L
    | [ "create"; file; keys ] ->
        table := Some (manage ~init:(int_of_string keys) file [ Unix.O_RDWR; Unix.O_CREAT ]);
        answer 0. 0 0L
    | [ "open"; file ] -> table := Some (manage file [ Unix.O_RDWR ]); answer 0. 0 0L
    | [ "run"; name; first; last; seconds ] ->
        script := Some (read_script name);
        run (get ()) (Option.get !script) (int_of_string first) (int_of_string last) seconds
    | [ "go-on"; first; last; seconds ] ->
        run (get ()) (Option.get !script) (int_of_string first) (int_of_string last) seconds
    | [ "iterate" ] -> iterate (get ())
    | words -> failwith ("no such command: " ^ String.concat " " words) in
  try
    while true do
      try command (String.split_on_char ' ' (input_line stdin)) with
      | End_of_file -> raise End_of_file
      | e -> Printf.printf "failed %s\n%!" (Printexc.to_string e)
    done
  with End_of_file -> ()
