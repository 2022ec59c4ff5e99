package storage

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// eachEngine opens an empty store of each engine: storagetest cannot be used from inside of the package.
func eachEngine(t *testing.T, test func(t *testing.T, db *DB)) {
	t.Helper()
	run := func(name, dsn string) {
		t.Run(name, func(t *testing.T) {
			db, err := Open(t.Context(), dsn, Options{NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			test(t, db)
		})
	}
	run("sqlite", "sqlite:"+filepath.Join(t.TempDir(), "test.db"))
	base := os.Getenv("TEST_POSTGRES")
	if base == "" {
		return
	}
	admin, err := sql.Open("pgx", base)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := admin.Exec("create schema pipeline_test"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := admin.Exec("drop schema pipeline_test cascade"); err != nil {
			t.Error(err)
		}
	}()
	run("postgres", base+"&search_path=pipeline_test")
}

// Statements that are asked for together answer as they would one after another, whatever their types, empty ones too; what was put off is
// done before what follows sees it; and an error anywhere in between undoes the write and leaves the connection usable.
func TestPipeline(t *testing.T) {
	eachEngine(t, func(t *testing.T, db *DB) {
		ctx := context.Background()
		var (
			ints  []int64
			texts []string
			raw   []byte
			none  int
			real  float64
			null  *int64
		)
		err := db.Write(ctx, func(tx *Tx) error {
			if err := tx.later(`insert into zones (name, description, created, updated) values ($1, 'late', 0, 0)`, "z1"); err != nil {
				return err
			}
			ints, texts, none = nil, nil, 0
			return tx.all(
				query{`select id from zones where name = $1 or id = $2 order by id`, []any{"z1", DefaultZoneID}, func(r *sql.Rows) error {
					var id int64
					err := r.Scan(&id)
					ints = append(ints, id)
					return err
				}},
				query{`select name from zones where name = 'nowhere'`, nil, func(*sql.Rows) error { none++; return nil }},
				query{`select description from zones where name = $1`, []any{"z1"}, func(r *sql.Rows) error {
					var s string
					err := r.Scan(&s)
					texts = append(texts, s)
					return err
				}},
				query{`select cast($1 as double precision), cast(null as bigint)`, []any{1.5}, func(r *sql.Rows) error { return r.Scan(&real, &null) }},
				query{`insert into nonces (token_key, nonce, seen) values ('k', 'n', 5)`, nil, func(*sql.Rows) error { none++; return nil }},
				query{`select stdout from script_results where id = -1 union all select $1`, []any{[]byte{0, 1, 255}}, func(r *sql.Rows) error { return r.Scan(&raw) }},
			)
		})
		if err != nil || len(ints) != 2 || !slices.Equal(texts, []string{"late"}) || none != 0 || real != 1.5 || null != nil || string(raw) != "\x00\x01\xff" {
			t.Fatalf("%v: %v %q %d %v %v %x", err, ints, texts, none, real, null, raw)
		}

		count := func() (zones, nonces int64) {
			t.Helper()
			if err := db.Read(ctx, func(tx *Tx) error {
				return tx.get([]any{&zones, &nonces}, `select (select count(*) from zones), (select count(*) from nonces)`)
			}); err != nil {
				t.Fatal(err)
			}
			return zones, nonces
		}
		zones, nonces := count()
		if zones != 2 || nonces != 1 {
			t.Fatalf("%d zones, %d nonces", zones, nonces)
		}
		taken := `insert into zones (name, description, created, updated) values ('z1', '', 0, 0)`
		plain := func(q string) query { return query{text: q, scan: func(*sql.Rows) error { return nil }} }
		for name, fn := range map[string]func(tx *Tx) error{
			"among others": func(tx *Tx) error {
				return tx.all(plain(`insert into nonces (token_key, nonce, seen) values ('k', 'm', 5)`), plain(taken), plain(`select 1`))
			},
			"the last of others": func(tx *Tx) error {
				return tx.all(plain(`insert into nonces (token_key, nonce, seen) values ('k', 'm', 5)`), plain(taken))
			},
			"put off": func(tx *Tx) error {
				if err := tx.later(`insert into nonces (token_key, nonce, seen) values ('k', 'm', 5)`); err != nil {
					return err
				}
				return tx.later(taken)
			},
			"in front of a query": func(tx *Tx) error {
				if err := tx.later(taken); err != nil {
					return err
				}
				_, err := tx.ZoneNames()
				return err
			},
			"in front of a statement": func(tx *Tx) error {
				if err := tx.later(taken); err != nil {
					return err
				}
				_, err := tx.Exec(`insert into nonces (token_key, nonce, seen) values ('k', 'm', 5)`)
				return err
			},
		} {
			if err := db.Write(ctx, fn); !errors.Is(err, ErrConflict) {
				t.Errorf("%s: %v", name, err)
			}
			if z, n := count(); z != zones || n != nonces {
				t.Errorf("%s: %d zones and %d nonces are left", name, z, n)
			}
		}
		own := errors.New("own")
		err = db.Read(ctx, func(tx *Tx) error {
			return tx.all(plain(`select 1`), query{`select id from zones`, nil, func(*sql.Rows) error { return own }}, plain(`select 2`))
		})
		if !errors.Is(err, own) {
			t.Errorf("a scan that fails: %v", err)
		}
		if err := db.Write(ctx, func(tx *Tx) error { return nil }); err != nil {
			t.Errorf("a write of nothing: %v", err)
		}
		if z, n := count(); z != zones || n != nonces {
			t.Errorf("%d zones and %d nonces in the end", z, n)
		}
	})
}
