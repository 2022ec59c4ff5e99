package storage

import (
	"fmt"
	"strconv"
)

func (tx *Tx) ExplainCandidates(f NodeFilter, limit int) {
	f.Free = true
	w := f.where(tx)
	q := `select n.id, n.system_id, n.hostname, n.cpu_count, n.memory from nodes n` + w.sql() +
		` order by n.cpu_count * 1024 + n.memory, n.id limit ` + strconv.Itoa(limit)
	fmt.Println(q)
	rows, err := tx.Query("explain query plan "+q, w.args...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer rows.Close()
	for rows.Next() {
		var a, b, c int
		var d string
		fmt.Println(rows.Scan(&a, &b, &c, &d), a, b, d)
	}
}
