(* The reference's side of the comparison of tables: tables (string|int32) OBJECT OPERATIONS. Reads operations, one a
 * line, as ours_tables.c makes them, and prints the answer to each, one a line. Keys and values are in the form of
 * Hex. With `string` they are strings in a Netshm_hashtbl; with `int32` the key is an int32 and the value an array of
 * them, in a Netshm, and their bytes are those of little-endian words. *)

type table =
  { add : string -> string -> unit
  ; find : string -> string
  ; find_all : string -> string list
  ; mem : string -> bool
  ; remove : string -> unit
  ; replace : string -> string -> unit
  ; length : unit -> int
  ; iter : (string -> string -> unit) -> unit
  ; iter_keys : (string -> unit) -> unit
  ; fold : (string -> string -> int -> int) -> int -> int
  ; group : (unit -> unit) -> unit
  }

let strings descriptor =
  let m = Netshm_data.string_manager in
  let t = Netshm_hashtbl.manage m m `Record_locking descriptor in
  let open Netshm_hashtbl in
  { add = add t; find = find t; find_all = find_all t; mem = mem t; remove = remove t; replace = replace t
  ; length = (fun () -> length t); iter = (fun f -> iter f t); iter_keys = (fun f -> iter_keys f t)
  ; fold = (fun f first -> fold f t first); group = (fun f -> Netshm.group (shm_table t) f ()) }

let int32s descriptor =
  let t = Netshm.manage `Record_locking descriptor in
  let word s i = Bytes.get_int32_le (Bytes.unsafe_of_string s) (4 * i) in
  let key s = word s 0 in
  let value s =
    let n = String.length s / 4 in
    let a = Bigarray.Array1.create Bigarray.int32 Bigarray.c_layout n in
    for i = 0 to n - 1 do a.{i} <- word s i done;
    a in
  let of_words n word =
    let b = Bytes.create (4 * n) in
    for i = 0 to n - 1 do Bytes.set_int32_le b (4 * i) (word i) done;
    Bytes.to_string b in
  let of_key k = of_words 1 (fun _ -> k) in
  let of_value (a : Netshm.int32_array) = of_words (Bigarray.Array1.dim a) (fun i -> a.{i}) in
  let open Netshm in
  { add = (fun k v -> add t (key k) (value v)); find = (fun k -> of_value (find t (key k)))
  ; find_all = (fun k -> List.map of_value (find_all t (key k))); mem = (fun k -> mem t (key k))
  ; remove = (fun k -> remove t (key k)); replace = (fun k v -> replace t (key k) (value v))
  ; length = (fun () -> length t); iter = (fun f -> iter (fun k v -> f (of_key k) (of_value v)) t)
  ; iter_keys = (fun f -> iter_keys (fun k -> f (of_key k)) t)
  ; fold = (fun f first -> fold (fun k v n -> f (of_key k) (of_value v) n) t first)
  ; group = (fun f -> group t f ()) }

let words = String.concat ","
let sorted l = List.sort compare l

(* The bindings that iter shows, by key, those of one key in the order in which it shows them. *)
let bindings t =
  let keys = Hashtbl.create 100 in
  t.iter (fun k v -> Hashtbl.replace keys k (Hex.of_string v :: (try Hashtbl.find keys k with Not_found -> [])));
  let by_key = sorted (Hashtbl.fold (fun k vs l -> (Hex.of_string k, List.rev vs) :: l) keys []) in
  String.concat ";" (List.map (fun (k, vs) -> k ^ "=" ^ words vs) by_key)

let rec perform t channel line =
  let text = Hex.to_string in
  print_endline (match line with
    | [ "add"; k; v ] -> t.add (text k) (text v); "done"
    | [ "replace"; k; v ] -> t.replace (text k) (text v); "done"
    | [ "remove"; k ] -> t.remove (text k); "done"
    | [ "find"; k ] -> (try Hex.of_string (t.find (text k)) with Not_found -> "none")
    | [ "find_all"; k ] -> words (List.map Hex.of_string (t.find_all (text k)))
    | [ "mem"; k ] -> string_of_bool (t.mem (text k))
    | [ "length" ] -> string_of_int (t.length ())
    | [ "iter" ] -> bindings t
    | [ "iter_keys" ] ->
        let keys = ref [] in
        t.iter_keys (fun k -> keys := Hex.of_string k :: !keys);
        words (sorted !keys)
    | [ "fold" ] -> string_of_int (t.fold (fun k v sum -> sum + String.length k + String.length v + 1) 0)
    | [ "group"; n ] ->
        t.group (fun () ->
          for _ = 1 to int_of_string n do perform t channel (String.split_on_char ' ' (input_line channel)) done);
        "end"
    | other -> failwith (String.concat " " other))

let () =
  let descriptor = Netshm.open_shm (`File Sys.argv.(2)) [ Unix.O_RDWR; Unix.O_CREAT ] 0o600 in
  let table = if Sys.argv.(1) = "string" then strings descriptor else int32s descriptor in
  let channel = open_in Sys.argv.(3) in
  Hex.lines channel (perform table channel)
