package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/url"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver that makes schemas

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

const (
	nicsEach  = 5
	disksEach = 6
	rareEvery = 100 // one in so many machines is what a filter looks for
)

// machineID is the system_id that the i-th machine has.
func machineID(i int) string { return fmt.Sprintf("n%05x", i) }

// fill writes Ready machines with interfaces, disks, facts, results and an lshw document each, before the server starts: they are not what
// is measured. One in a hundred is in a zone and a pool of its own and has a tag of its own; tags say which are the first so many.
func fill(ctx context.Context, dsn string, n int, firsts []int) error {
	db, err := storage.Open(ctx, dsn, storage.Options{NoSync: true})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := storagetest.Fill(ctx, db, n, nicsEach, disksEach); err != nil {
		return err
	}
	var ids []int64
	err = db.Write(ctx, func(tx *storage.Tx) (err error) {
		if ids, err = tx.NodesAfter(0, 2*n); err != nil {
			return err
		}
		kept := ids[:0]
		for _, id := range ids {
			node, err := tx.NodeByID(id)
			if err != nil {
				return err
			}
			if node.NodeType == storage.NodeMachine {
				kept = append(kept, id)
			}
		}
		if ids = kept; len(ids) != n {
			return fmt.Errorf("%d machines instead of %d", len(ids), n)
		}
		zone, pool := storage.Zone{Name: "east"}, storage.Pool{Name: "lab"}
		if err := tx.InsertZone(&zone); err != nil {
			return err
		}
		if err := tx.InsertPool(&pool); err != nil {
			return err
		}
		for i := 7; i < n; i += rareEvery {
			if _, err := tx.Exec(`update nodes set zone_id = $1, pool_id = $2, agent_name = 'bench' where id = $3`, zone.ID, pool.ID, ids[i]); err != nil {
				return err
			}
			if err := tx.TagNode(ids[i], "rare"); err != nil {
				return err
			}
		}
		for _, first := range firsts {
			for _, id := range ids[:first] {
				if err := tx.TagNode(id, fmt.Sprintf("first-%d", first)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for from := 0; from < n; from += 500 {
		err := db.Write(ctx, func(tx *storage.Tx) error {
			for i := from; i < min(n, from+500); i++ {
				set, err := tx.CurrentScriptSet(ids[i], storage.SetCommissioning)
				if err != nil {
					return err
				}
				err = tx.SaveScriptResult(&storage.ScriptResult{SetID: set.ID, Name: storage.ResultLSHW, Status: storage.ScriptPassed, Stdout: lshw(i)})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lshw is a document of the usual size. One machine in four has a GPU.
func lshw(i int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `<?xml version="1.0" standalone="yes" ?><list><node id="machine-%d" claimed="true" class="system" handle="DMI:0001"><serial>%08X</serial>`, i, i*7919)
	for j := range 90 {
		fmt.Fprintf(&b, `<node id="dev:%d" claimed="true" class="generic" handle="PCI:0000:00:%02x.0"><description>System peripheral</description><product>Sky Lake-E CHA Registers</product>`+
			`<vendor>Intel Corporation</vendor><physid>8</physid><businfo>pci@0000:16:08.0</businfo><version>07</version><width units="bits">32</width><clock units="Hz">33000000</clock>`+
			`<configuration><setting id="latency" value="0" /></configuration><capabilities><capability id="pciexpress" >PCI Express</capability></capabilities></node>`, j, j)
	}
	if i%4 == 0 {
		b.WriteString(`<node id="display" class="display"><product>GA100</product><vendor>NVIDIA Corporation</vendor></node>`)
	}
	b.WriteString("</node></list>")
	return []byte(b.String())
}

// schema makes an empty schema on a PostgreSQL server and answers the URL that leads to it, and what removes it.
func schema(ctx context.Context, base string) (dsn string, drop func() error, err error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", nil, fmt.Errorf("the PostgreSQL URL is malformed")
	}
	db, err := sql.Open("pgx", base)
	if err != nil {
		return "", nil, err
	}
	name := "bench_" + strings.ToLower(rand.Text())
	if _, err := db.ExecContext(ctx, "create schema "+name); err != nil {
		_ = db.Close()
		return "", nil, err
	}
	q := u.Query()
	q.Set("search_path", name)
	u.RawQuery = q.Encode()
	return u.String(), func() error {
		_, err := db.ExecContext(context.WithoutCancel(ctx), "drop schema "+name+" cascade")
		_ = db.Close()
		return err
	}, nil
}

// settled has PostgreSQL look at what was written, as it does by itself some time later.
func settled(ctx context.Context, base string) error {
	db, err := sql.Open("pgx", base)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, "vacuum analyze")
	return err
}
