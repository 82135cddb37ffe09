(* Strings as the programs of this directory print them: x, then two digits for each byte. *)

let of_string s = "x" ^ String.concat "" (List.map (fun c -> Printf.sprintf "%02x" (Char.code c)) (List.of_seq (String.to_seq s)))

let to_string h = String.init ((String.length h - 1) / 2) (fun i -> Char.chr (int_of_string ("0x" ^ String.sub h (1 + 2 * i) 2)))

let lines channel f = try while true do f (String.split_on_char ' ' (input_line channel)) done with End_of_file -> ()
