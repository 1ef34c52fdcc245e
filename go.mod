module crdt-genome

go 1.26
