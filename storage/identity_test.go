package storage_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

func TestTokensDieWithTheirUser(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		u := addUser(t, db, "u")
		write(t, db, func(tx *storage.Tx) error {
			tok := storage.APIToken{UserID: u.ID, Name: "n", ConsumerKey: "c", TokenKey: "t", TokenSecret: "s"}
			if err := tx.InsertToken(&tok); err != nil {
				return err
			}
			if err := tx.RenameToken(tok.ID, "other"); err != nil {
				return err
			}
			got, err := tx.TokenByKey("t")
			if got.Name != "other" || got.UserID != u.ID || got.TokenSecret != "s" {
				t.Errorf("got %+v", got)
			}
			yes, err2 := tx.ConsumerExists("c")
			no, err3 := tx.ConsumerExists("x")
			if !yes || no {
				t.Errorf("consumers %v %v", yes, no)
			}
			err4 := tx.InsertSSHKey(&storage.SSHKey{UserID: u.ID, Key: "k"})
			err5 := tx.InsertSession(storage.Session{ID: "s", UserID: u.ID, CSRF: "c", Expires: tx.Now().Add(time.Hour)})
			counts, err6 := tx.SSHKeyCounts()
			if counts[u.ID] != 1 {
				t.Errorf("counts %v", counts)
			}
			return errors.Join(err, err2, err3, err4, err5, err6)
		})
		write(t, db, func(tx *storage.Tx) error { return tx.DeleteUser(u.ID) })
		for _, table := range []string{"api_tokens", "sshkeys", "sessions"} {
			if n := count(t, db, "select count(*) from "+table); n != 0 {
				t.Errorf("%s: %d rows left", table, n)
			}
		}
	})
}

func TestSessionsExpire(t *testing.T) {
	c := newClock()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		u := addUser(t, db, "u")
		write(t, db, func(tx *storage.Tx) error {
			return tx.InsertSession(storage.Session{ID: "s", UserID: u.ID, CSRF: "c", Expires: tx.Now().Add(time.Hour)})
		})
		get := func() error {
			return db.Read(ctx, func(tx *storage.Tx) error { _, err := tx.Session("s"); return err })
		}
		if err := get(); err != nil {
			t.Error(err)
		}
		c.add(time.Hour)
		if err := get(); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("an old session: %v", err)
		}
		write(t, db, func(tx *storage.Tx) error {
			n, err := tx.PurgeSessions()
			if n != 1 {
				t.Errorf("purged %d", n)
			}
			return err
		})
	}, storagetest.WithNow(c.now))
}

func TestNonces(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		at := time.Unix(1000, 0).UTC()
		list := []storage.Nonce{{"t", "a", at}, {"t", "b", at.Add(time.Second)}}
		for range 2 {
			write(t, db, func(tx *storage.Tx) error { return tx.InsertNonces(list) })
		}
		write(t, db, func(tx *storage.Tx) error {
			got, err := tx.Nonces(at.Add(time.Second))
			if len(got) != 1 || got[0] != list[1] {
				t.Errorf("got %v", got)
			}
			n, err2 := tx.PurgeNonces(at.Add(time.Second))
			if n != 1 {
				t.Errorf("purged %d", n)
			}
			return errors.Join(err, err2)
		})
	})
}

func TestIdempotency(t *testing.T) {
	c := newClock()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		reserve := func() (k *storage.IdempotencyKey) {
			write(t, db, func(tx *storage.Tx) (err error) { k, err = tx.ReserveIdempotency(1, "key", "POST /x abc"); return err })
			return k
		}
		if k := reserve(); k != nil {
			t.Errorf("the first: %+v", k)
		}
		if k := reserve(); k == nil || k.Status != 0 || k.Request != "POST /x abc" {
			t.Errorf("while it runs: %+v", k)
		}
		write(t, db, func(tx *storage.Tx) error { return tx.FinishIdempotency(1, "key", 200, "text/plain", []byte("OK")) })
		if k := reserve(); k == nil || k.Status != 200 || string(k.Body) != "OK" || k.ContentType != "text/plain" {
			t.Errorf("when done: %+v", k)
		}
		if err := db.Write(ctx, func(tx *storage.Tx) error { return tx.FinishIdempotency(1, "key", 500, "", nil) }); !errors.Is(err, storage.ErrStale) {
			t.Errorf("a second answer: %v", err)
		}
		c.add(24*time.Hour + time.Second)
		if k := reserve(); k != nil {
			t.Errorf("after a day: %+v", k)
		}
		c.add(11 * time.Minute) // whoever held it is dead
		if k := reserve(); k != nil {
			t.Errorf("after a crash: %+v", k)
		}
		write(t, db, func(tx *storage.Tx) error { return tx.ReleaseIdempotency(1, "key") })
		if n := count(t, db, "select count(*) from idempotency_keys"); n != 0 {
			t.Errorf("%d keys after the release", n)
		}
	}, storagetest.WithNow(c.now))
}

func TestSettings(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		write(t, db, func(tx *storage.Tx) error {
			if _, err := tx.Setting("a"); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("unset: %v", err)
			}
			for _, v := range []string{`1`, `"ä"`} {
				if err := tx.PutSetting("a", json.RawMessage(v)); err != nil {
					return err
				}
			}
			all, err := tx.Settings()
			if len(all) != 1 || string(all["a"]) != `"ä"` {
				t.Errorf("all: %v", all)
			}
			return errors.Join(err, tx.DeleteSetting("a"))
		})
	})
}

func TestEventsPages(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		var ids []int64
		write(t, db, func(tx *storage.Tx) error {
			ids = nil
			if _, err := tx.Exec("insert into nodes (id, system_id, node_type, hostname, agent_name, domain_id, zone_id, created, updated) values (1, 'm', 0, 'm', 'ag', 0, 1, 1, 1), (2, 'd', 1, 'd', '', 0, 1, 1, 1)"); err != nil {
				return err
			}
			if _, err := tx.Exec("insert into interfaces (node_id, name, mac_address, created, updated) values (1, 'e', 'aa:bb', 1, 1)"); err != nil {
				return err
			}
			for i := range 10 {
				node, name := int64(1), "m"
				if i == 9 {
					node, name = 2, "d"
				}
				e := storage.Event{NodeID: &node, SystemID: name, NodeHostname: name, Type: "T", Level: int64(i%5) * 10, Username: "u", Description: fmt.Sprint(i)}
				if err := tx.InsertEvent(&e); err != nil {
					return err
				}
				ids = append(ids, e.ID)
			}
			return nil
		})
		zero := int64(0)
		for name, c := range map[string]struct {
			f    storage.EventFilter
			want []int
		}{
			"all":     {storage.EventFilter{}, []int{8, 7, 6, 5, 4, 3, 2, 1, 0}},
			"devices": {storage.EventFilter{Devices: true, Limit: 2}, []int{9, 8}},
			"level":   {storage.EventFilter{MinLevel: 30}, []int{8, 4, 3}},
			"audit":   {storage.EventFilter{Level: &zero}, []int{5, 0}},
			"before":  {storage.EventFilter{Before: &ids[4], Limit: 2}, []int{3, 2}},
			"after":   {storage.EventFilter{After: &ids[4], Limit: 2}, []int{6, 5}},
			"mac":     {storage.EventFilter{MACs: []string{"aa:bb"}, Limit: 1}, []int{8}},
			"no mac":  {storage.EventFilter{MACs: []string{"cc"}}, nil},
			"zone":    {storage.EventFilter{Zones: []string{"default", "x"}, Limit: 1}, []int{8}},
			"domain":  {storage.EventFilter{Domains: []string{"maas"}, AgentNames: []string{"ag"}, SystemIDs: []string{"m"}, Hostnames: []string{"m"}, Owners: []string{"u"}, Limit: 1}, []int{8}},
			"nothing": {storage.EventFilter{SystemIDs: []string{}}, nil},
		} {
			read(t, db, func(tx *storage.Tx) error {
				got, err := tx.Events(c.f)
				var have []int
				for _, e := range got {
					for i, id := range ids {
						if id == e.ID {
							have = append(have, i)
						}
					}
				}
				if fmt.Sprint(have) != fmt.Sprint(c.want) {
					t.Errorf("%s: got %v, want %v", name, have, c.want)
				}
				return err
			})
		}
		read(t, db, func(tx *storage.Tx) error {
			latest, err := tx.LatestEvents([]int64{1, 2, 3}, 20)
			if len(latest) != 2 || latest[1].ID != ids[8] || latest[2].ID != ids[9] {
				t.Errorf("latest: %v", latest)
			}
			return err
		})
		write(t, db, func(tx *storage.Tx) error { _, err := tx.Exec("delete from nodes where id = 1"); return err })
		read(t, db, func(tx *storage.Tx) error {
			got, err := tx.Events(storage.EventFilter{SystemIDs: []string{"m"}, Limit: 1})
			if len(got) != 1 || got[0].NodeID != nil || got[0].NodeHostname != "m" {
				t.Errorf("after the node is gone: %+v", got)
			}
			return err
		})
	})
}

func TestBootTimeline(t *testing.T) {
	c := newClock()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		add := func(step string) (b storage.Boot) {
			write(t, db, func(tx *storage.Tx) (err error) {
				b, err = tx.AddBootSteps("aa", nil, "", "commissioning", 10*time.Minute, storage.BootStep{At: tx.Now(), Step: step})
				return err
			})
			return b
		}
		a := add("dhcp")
		b := add("tftp")
		var steps []storage.BootStep
		if err := json.Unmarshal(b.Steps, &steps); err != nil || a.ID != b.ID || len(steps) != 2 || steps[1].Step != "tftp" {
			t.Errorf("got %+v, %v", b, err)
		}
		c.add(time.Hour)
		if n := add("dhcp"); n.ID == a.ID {
			t.Error("an hour later it is still the same boot")
		}
		write(t, db, func(tx *storage.Tx) error { return tx.EndBoot("aa", "ok") })
		n := add("dhcp")
		for range 500 {
			n = add("tftp")
		}
		if err := json.Unmarshal(n.Steps, &steps); err != nil || len(steps) > 200 || steps[0].Step != "dhcp" {
			t.Errorf("%d steps, %v", len(steps), err)
		}
		read(t, db, func(tx *storage.Tx) error {
			list, err := tx.BootsByMAC("aa", 10)
			if len(list) != 3 || list[1].Verdict != "ok" || list[0].ID != n.ID {
				t.Errorf("got %+v", list)
			}
			return err
		})
	}, storagetest.WithNow(c.now))
}
