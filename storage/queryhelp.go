package storage

import (
	"crypto/rand"
	"slices"
	"strconv"
)

// listByIDs runs "query where column in (ids) tail", or without the condition when ids is nil.
func listByIDs[T any](tx *Tx, scan func(scanner) (T, error), ids []int64, query, column, tail string) ([]T, error) {
	w := tx.where().in(column, ids)
	return list(tx, scan, query+w.sql()+" "+tail, w.args...)
}

// countMap runs a query of two numbers a row, key and value.
func countMap(tx *Tx, q string, args ...any) (map[int64]int64, error) {
	rows, err := list(tx, scanPair, q, args...)
	if err != nil {
		return nil, err
	}
	out := make(map[int64]int64, len(rows))
	for _, kv := range rows {
		out[kv[0]] = kv[1]
	}
	return out, nil
}

func scanPair(r scanner) (kv [2]int64, err error) {
	err = r.Scan(&kv[0], &kv[1])
	return kv, err
}

// notNil turns nil, which listByIDs takes for "all", into "none".
func notNil(ids []int64) []int64 {
	if ids == nil {
		return []int64{}
	}
	return ids
}

func sortedUnique(ids []int64) []int64 {
	s := slices.Clone(ids)
	slices.Sort(s)
	return slices.Compact(s)
}

// placeholderName stands for an empty name until the id is known that the generated name holds.
func placeholderName(name string) string {
	if name == "" {
		return "new-" + rand.Text()
	}
	return name
}

func generatedName(kind string, id int64) string { return kind + "-" + strconv.FormatInt(id, 10) }
