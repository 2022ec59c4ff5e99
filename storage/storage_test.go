package storage_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

var ctx = context.Background()

func write(t testing.TB, db *storage.DB, fn func(tx *storage.Tx) error) {
	t.Helper()
	if err := db.Write(ctx, fn); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, db *storage.DB, fn func(tx *storage.Tx) error) {
	t.Helper()
	if err := db.Read(ctx, fn); err != nil {
		t.Fatal(err)
	}
}

func addUser(t testing.TB, db *storage.DB, name string) storage.User {
	t.Helper()
	u := storage.User{Username: name, IsActive: true}
	write(t, db, func(tx *storage.Tx) error { u.ID = 0; return tx.InsertUser(&u) })
	return u
}

func count(t testing.TB, db *storage.DB, q string, args ...any) (n int64) {
	t.Helper()
	read(t, db, func(tx *storage.Tx) error { return tx.QueryRow(q, args...).Scan(&n) })
	return n
}

func TestDefaultRows(t *testing.T) {
	storagetest.EachDSN(t, func(t *testing.T, dsn string) {
		for round := range 2 { // the second opening must add nothing
			db, err := storage.Open(ctx, dsn, storage.Options{NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			for q, want := range map[string]int64{
				"select id from zones where name = 'default'":                     storage.DefaultZoneID,
				"select id from pools where name = 'default'":                     storage.DefaultPoolID,
				"select id from domains where name = 'maas'":                      storage.DefaultDomainID,
				"select id from fabrics where name = 'fabric-0'":                  storage.DefaultFabricID,
				"select id from vlans where vid = 0 and fabric_id = 0":            storage.DefaultVLANID,
				"select count(*) from zones":                                      1 + int64(round),
				"select count(*) from vlans":                                      1 + int64(round),
				"select count(*) from pools where id = 1":                         int64(round),
				"select count(*) from zones where id = 2":                         int64(round),
				"select count(*) from vlans where id = 5002":                      int64(round),
				"select count(*) from fabrics where id = 1 and name = 'fabric-1'": int64(round),
			} {
				if got := count(t, db, q); got != want {
					t.Errorf("round %d: %s: %d, want %d", round, q, got, want)
				}
			}
			if round == 0 {
				write(t, db, func(tx *storage.Tx) error {
					for _, q := range []string{
						"insert into zones (name, created, updated) values ('z', 1, 1)",
						"insert into pools (name, created, updated) values ('p', 1, 1)",
						"insert into fabrics (name, created, updated) values ('fabric-1', 1, 1)",
						"insert into vlans (fabric_id, vid, created, updated) values (1, 0, 1, 1)",
					} {
						if _, err := tx.Exec(q); err != nil {
							return err
						}
					}
					return nil
				})
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestErrorsAreTranslated(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		u := addUser(t, db, "anna")
		err := db.Write(ctx, func(tx *storage.Tx) error { return tx.InsertUser(&storage.User{Username: "anna"}) })
		if !errors.Is(err, storage.ErrConflict) {
			t.Errorf("same name: %v", err)
		}
		err = db.Write(ctx, func(tx *storage.Tx) error {
			return tx.InsertSSHKey(&storage.SSHKey{UserID: u.ID + 99, Key: "x"})
		})
		if !errors.Is(err, storage.ErrConflict) {
			t.Errorf("no such user: %v", err)
		}
		if err := db.Read(ctx, func(tx *storage.Tx) error { _, err := tx.User(u.ID + 99); return err }); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("read: %v", err)
		}
		if err := db.Write(ctx, func(tx *storage.Tx) error { return tx.DeleteToken(5) }); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("delete: %v", err)
		}
		err = db.Write(ctx, func(tx *storage.Tx) error {
			if err := tx.Savepoint(func() error { return tx.InsertUser(&storage.User{Username: "anna"}) }); !errors.Is(err, storage.ErrConflict) {
				return fmt.Errorf("in the savepoint: %v", err)
			}
			return tx.InsertUser(&storage.User{Username: "berta"})
		})
		if err != nil {
			t.Errorf("after the savepoint: %v", err)
		}
		if err := db.Read(ctx, func(tx *storage.Tx) error { return tx.InsertUser(&storage.User{Username: "in a read"}) }); err == nil {
			t.Error("a read wrote")
		}
		if n := count(t, db, "select count(*) from users"); n != 2 {
			t.Errorf("%d users", n)
		}
	})
}

func TestUserRoundTrip(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 890_123_999, time.UTC)
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		u := storage.User{Username: "ä", Email: "a@b", LastName: "x", IsSuperuser: true, IsActive: true, PasswordHash: "h"}
		write(t, db, func(tx *storage.Tx) error { return tx.InsertUser(&u) })
		read(t, db, func(tx *storage.Tx) error {
			got, err := tx.User(u.ID)
			if err == nil && (got != u || !got.Created.Equal(now.Truncate(time.Microsecond)) || !got.LastLogin.IsZero()) {
				t.Errorf("got %+v, want %+v", got, u)
			}
			return err
		})
		u.LastLogin, u.IsActive = now.Truncate(time.Microsecond), false
		write(t, db, func(tx *storage.Tx) error { return tx.UpdateUser(u) })
		read(t, db, func(tx *storage.Tx) error {
			got, err := tx.UserByName("ä")
			if got != u {
				t.Errorf("got %+v, want %+v", got, u)
			}
			byID, err2 := tx.UsersByID([]int64{u.ID, 77})
			if len(byID) != 1 || byID[u.ID] != u {
				t.Errorf("by id: %+v", byID)
			}
			none, err3 := tx.UsersByID(nil)
			if len(none) != 0 {
				t.Errorf("of nobody: %+v", none)
			}
			return errors.Join(err, err2, err3)
		})
	}, storagetest.WithNow(func() time.Time { return now }))
}

// The proof that writers do not see half of each other: each reads a number and writes it plus one.
func TestWritersTakeTurns(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		write(t, db, func(tx *storage.Tx) error { return tx.PutSetting("n", json.RawMessage("0")) })
		const workers, rounds = 16, 25
		var wg sync.WaitGroup
		var committed, after atomic.Int64
		for w := range workers {
			wg.Go(func() {
				for r := range rounds {
					undo := (w+r)%5 == 0
					err := db.Write(ctx, func(tx *storage.Tx) error {
						raw, err := tx.Setting("n")
						if err != nil {
							return err
						}
						var n int
						if err := json.Unmarshal(raw, &n); err != nil {
							return err
						}
						tx.AfterCommit(func() { after.Add(1) })
						if err := tx.PutSetting("n", fmt.Appendf(nil, "%d", n+1)); err != nil {
							return err
						}
						if undo {
							return errUndo
						}
						return nil
					})
					switch {
					case undo && errors.Is(err, errUndo):
					case err == nil && !undo:
						committed.Add(1)
					default:
						t.Errorf("undo %v: %v", undo, err)
					}
				}
			})
		}
		wg.Wait()
		read(t, db, func(tx *storage.Tx) error {
			raw, err := tx.Setting("n")
			if want := fmt.Sprint(committed.Load()); string(raw) != want {
				t.Errorf("counted %s, %s commits", raw, want)
			}
			return err
		})
		if after.Load() != committed.Load() {
			t.Errorf("AfterCommit ran %d times for %d commits", after.Load(), committed.Load())
		}
	})
}

var errUndo = errors.New("undo")

func TestWriteSurvivesPanicAndGoexit(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				defer func() { _ = recover() }()
				_ = db.Write(ctx, func(tx *storage.Tx) error {
					if err := tx.InsertUser(&storage.User{Username: fmt.Sprintf("u%d", i)}); err != nil {
						t.Error(err)
					}
					switch i % 3 {
					case 0:
						panic("on purpose")
					case 1:
						runtime.Goexit()
					}
					return nil
				})
			})
		}
		wg.Wait()
		if n := count(t, db, "select count(*) from users"); n != 10 {
			t.Errorf("%d users", n)
		}
		if err := db.Write(ctx, func(tx *storage.Tx) error { return tx.InsertUser(&storage.User{Username: "last"}) }); err != nil {
			t.Error(err)
		}
	})
}

func TestContextEndsAWrite(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		c, cancel := context.WithCancel(ctx)
		err := db.Write(c, func(tx *storage.Tx) error {
			if err := tx.InsertUser(&storage.User{Username: "x"}); err != nil {
				return err
			}
			cancel()
			return tx.InsertUser(&storage.User{Username: "y"})
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if n := count(t, db, "select count(*) from users"); n != 0 {
			t.Errorf("%d users", n)
		}
		if err := db.Write(c, func(*storage.Tx) error { return nil }); err == nil {
			t.Error("a write under a context that is over")
		}
	})
}

func TestRevisionWakes(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		start, err := db.WaitRevision(ctx, -1)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan int64, 1)
		go func() {
			n, err := db.WaitRevision(ctx, start)
			if err != nil {
				t.Error(err)
			}
			got <- n
		}()
		_ = db.Write(ctx, func(tx *storage.Tx) error {
			if _, err := tx.Revision(); err != nil {
				t.Error(err)
			}
			return errUndo
		})
		var n1, n2 int64
		write(t, db, func(tx *storage.Tx) (err error) {
			if n1, err = tx.Revision(); err == nil {
				n2, err = tx.Revision()
			}
			return err
		})
		if n1 != n2 || n1 != start+1 {
			t.Errorf("numbers %d and %d after %d", n1, n2, start)
		}
		select {
		case n := <-got:
			if n != n1 {
				t.Errorf("woke with %d, want %d", n, n1)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("nobody woke")
		}
		c, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		if _, err := db.WaitRevision(c, n1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for nothing: %v", err)
		}
	})
}

// Two regions on one store: what one commits wakes the other.
func TestRevisionCrossesProcesses(t *testing.T) {
	storagetest.EachDSN(t, func(t *testing.T, dsn string) {
		var dbs [2]*storage.DB
		for i := range dbs {
			db, err := storage.Open(ctx, dsn, storage.Options{NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			dbs[i] = db
		}
		since, err := dbs[1].WaitRevision(ctx, -1)
		if err != nil {
			t.Fatal(err)
		}
		var want int64
		write(t, dbs[0], func(tx *storage.Tx) (err error) { want, err = tx.Revision(); return err })
		c, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if n, err := dbs[1].WaitRevision(c, since); err != nil || n != want {
			t.Errorf("got %d, %v; want %d", n, err, want)
		}
	})
}

// Readers that see a revision see the change that took it, whatever the writers do meanwhile.
func TestRevisionCoversItsChange(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for w := range 4 {
			wg.Go(func() {
				for i := range 30 {
					err := db.Write(ctx, func(tx *storage.Tx) error {
						n, err := tx.Revision()
						if err != nil {
							return err
						}
						_, err = tx.Exec("insert into node_tombstones (system_id, revision) values ($1, $2)", fmt.Sprintf("%d-%d", w, i), n)
						return err
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				for {
					err := db.Read(ctx, func(tx *storage.Tx) error {
						now, err := tx.CurrentRevision()
						if err != nil {
							return err
						}
						var n, top int64
						if err := tx.QueryRow("select count(*), coalesce(max(revision), 0) from node_tombstones").Scan(&n, &top); err != nil {
							return err
						}
						if n != now || top != now {
							t.Errorf("revision %d shows %d rows, the newest %d", now, n, top)
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		wg.Wait()
		close(stop)
		readers.Wait()
	})
}

func TestCounter(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		c, n := storage.WithCounter(ctx)
		if err := db.Read(c, func(tx *storage.Tx) error {
			_, err := tx.Users()
			_, err2 := tx.Settings()
			return errors.Join(err, err2)
		}); err != nil {
			t.Fatal(err)
		}
		if n.N() != 2 {
			t.Errorf("counted %d statements", n.N())
		}
	})
}

func TestAddressesSortAsBytes(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ips := []string{"0.0.0.0", "9.255.255.255", "10.0.0.2", "10.0.0.10", "10.0.1.0", "255.255.255.255", "::", "2001:db8::1", "fe80::1"}
		write(t, db, func(tx *storage.Tx) error {
			for i := len(ips) - 1; i >= 0; i-- {
				if _, err := tx.Exec("insert into dhcp_leases (ip, mac, subnet_id, expires, updated) values ($1, $2, 1, 0, 0)", netip.MustParseAddr(ips[i]), ips[i]); err != nil {
					return err
				}
			}
			return nil
		})
		read(t, db, func(tx *storage.Tx) error {
			rows, err := tx.Query("select mac from dhcp_leases where ip >= $1 order by ip", netip.MustParseAddr("::ffff:9.0.0.0"))
			if err != nil {
				return err
			}
			defer func() { _ = rows.Close() }()
			var got []string
			for rows.Next() {
				var s string
				if err := rows.Scan(&s); err != nil {
					return err
				}
				got = append(got, s)
			}
			if want := strings.Join(ips[1:], " "); strings.Join(got, " ") != want {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			return rows.Err()
		})
	})
}

// fill writes a row into every table, with the values that are hard to carry: null, empty, zero, binary, large, not ASCII.
func fill(t *testing.T, db *storage.DB) {
	t.Helper()
	write(t, db, func(tx *storage.Tx) error {
		ip := netip.MustParseAddr("10.0.0.1")
		for _, s := range []struct {
			q    string
			args []any
		}{
			{"insert into settings (name, value) values ('kernel_opts', $1)", []any{json.RawMessage(`"ä < & \u0000"`)}},
			{"insert into users (id, username, created) values (7, 'zoë', 1), (8, 'Zoe', 2)", nil},
			{"insert into api_tokens (user_id, consumer_key, token_key, token_secret, created) values (7, 'c', 't', 's', 1)", nil},
			{"insert into nonces (token_key, nonce, seen) values ('t', 'b', 1), ('t', 'B', 1), ('T', 'a', 1)", nil},
			{"insert into sessions (id, user_id, csrf, expires) values ('x', 7, 'c', 1)", nil},
			{"insert into sshkeys (user_id, key, created) values (7, 'ssh-ed25519 AAAA', 1)", nil},
			{"insert into idempotency_keys (user_id, key, request, body, created) values (7, 'k', 'r', $1, 1), (7, 'K', 'r', $2, 1)", []any{[]byte{0, 255, 10}, []byte(nil)}},
			{"insert into tags (name, created, updated) values ('t', 1, 1)", nil},
			{"insert into spaces (name, created, updated) values ('s', 1, 1)", nil},
			{"insert into vlans (id, fabric_id, vid, relay_vlan_id, created, updated) values (6000, 0, 10, null, 1, 1)", nil},
			{"update vlans set relay_vlan_id = 6000 where id = 5001", nil},
			{"insert into subnets (id, vlan_id, name, cidr, first_ip, last_ip, created, updated) values (1, 5001, 'n', '10.0.0.0/24', $1, $1, 1, 1)", []any{ip}},
			{"insert into ipranges (subnet_id, type, start_ip, end_ip, created, updated) values (1, 'dynamic', $1, $1, 1, 1)", []any{ip}},
			{"insert into nodes (id, system_id, hostname, domain_id, zone_id, pool_id, user_data, created, updated) values (1, 'abc123', 'h', 0, 1, 0, $1, 1, 9007199254740993)", []any{bytes.Repeat([]byte{1, 2, 3, 0}, 1000)}},
			{"insert into node_tombstones (system_id, revision) values ('gone', 1)", nil},
			{"insert into node_tokens (node_id, consumer_key, token_key, token_secret, created) values (1, 'c', 'nt', 's', 1)", nil},
			{"insert into node_tags (node_id, tag_id) select 1, id from tags", nil},
			{"insert into node_metadata (node_id, key, value) values (1, 'cpu_model', 'x'), (1, 'CPU', 'x'), (1, '', 'x')", nil},
			{"insert into owner_data (node_id, key, value) values (1, 'k', 'v')", nil},
			{"insert into interfaces (id, node_id, name, mac_address, created, updated) values (1, 1, 'eth0', 'aa', 1, 1), (2, 1, 'eth1', 'ab', 1, 1)", nil},
			{"insert into interface_parents (child_id, parent_id) values (2, 1)", nil},
			{"insert into ip_addresses (interface_id, subnet_id, ip, alloc_type, created, updated) values (1, 1, $1, 1, 1, 1), (2, 1, null, 0, 1, 1)", []any{ip}},
			{"insert into dhcp_leases (ip, mac, subnet_id, expires, updated) values ($1, 'm', 1, 1, 1)", []any{ip}},
			{"insert into cache_sets (id, node_id, created, updated) values (1, 1, 1, 1)", nil},
			{"insert into storage_groups (id, node_id, type, name, uuid, cache_set_id, created, updated) values (1, 1, 'bcache', 'bcache0', 'u', 1, 1, 1)", nil},
			{"insert into block_devices (id, node_id, name, size, created, updated) values (1, 1, 'sda', 8, 1, 1)", nil},
			{"insert into block_devices (id, node_id, name, type, group_id, size, created, updated) values (2, 1, 'bcache0', 'virtual', 1, 8, 1, 1)", nil},
			{"insert into filesystems (node_id, block_device_id, fstype, cache_set_id, acquired) values (1, 2, 'bcache-cache', 1, 1)", nil},
			{"insert into partitions (id, block_device_id, number, uuid, size, created, updated) values (1, 1, 1, 'u', 4, 1, 1)", nil},
			{"insert into filesystems (node_id, partition_id, fstype) values (1, 1, 'ext4')", nil},
			{"insert into scripts (name, type, created, updated) values ('s', 2, 1, 1)", nil},
			{"insert into script_versions (script_id, content, created) values (1, $1, 1)", []any{[]byte("#!/bin/sh\n")}},
			{"insert into script_sets (id, node_id, type, created) values (1, 1, 0, 1)", nil},
			{"insert into script_results (set_id, name, status, output, updated) values (1, 's', 2, $1, 1)", []any{[]byte{}}},
			{"insert into events (node_id, type, level, created) values (1, 'READY', 20, 1)", nil},
			{"insert into boot_resources (id, rtype, name, architecture, created, updated) values (1, 2, 'custom/x', 'amd64/generic', 1, 1)", nil},
			{"insert into boot_resource_sets (id, resource_id, version, label, created) values (1, 1, '1', 'u', 1)", nil},
			{"insert into boot_resource_files (set_id, filename, filetype, sha256, size, created) values (1, 'f', 'squashfs', 'x', 3, 1)", nil},
			{"insert into jobs (kind, queue, run_at, created) values ('power', 'rack', 1, 1)", nil},
			{"insert into rack_vlans (rack_id, vlan_id, interface, address) values (1, 5001, 'e', 'a')", nil},
			{"insert into boots (node_id, mac, started, updated) values (1, 'aa', 1, 1)", nil},
			{"insert into reserved_ips (subnet_id, ip, mac, created, updated) values (1, $1, 'aa', 1, 1)", []any{ip}},
			{"insert into subnets (id, vlan_id, name, cidr, first_ip, last_ip, created, updated) values (2, 5001, 'm', '10.9.0.0/24', $1, $1, 1, 1)", []any{ip}},
			{"insert into static_routes (source_id, destination_id, gateway_ip, created, updated) values (1, 2, $1, 1, 1)", []any{ip}},
			{"insert into dhcp_snippets (id, name, node_id, subnet_id, iprange_id, created, updated) values (1, 's', 1, 1, null, 1, 1)", nil},
			{"insert into dhcp_snippet_values (snippet_id, value, created) values (1, 'next-server ä;', 1)", nil},
			{"insert into neighbours (ip, mac, vlan_id, rack_id, created, last_seen) values ($1, 'aa', 5001, 1, 1, 1)", []any{ip}},
			{"insert into node_devices (node_id, bus, vendor_id, product_id, pci_address, interface_id, block_device_id, created, updated) values (1, 1, '8086', '1521', '0000:02:00.0', 1, 1, 1, 1)", nil},
			{"insert into notifications (id, ident, user_id, message, created, updated) values (1, 'i', 7, '{n} ä', 1, 1)", nil},
			{"insert into notification_dismissals (notification_id, user_id, created) values (1, 7, 1)", nil},
			{"insert into files (user_id, filename, content, key, created, updated) values (7, 'a/b', $1, 'key', 1, 1)", []any{[]byte{0, 255}}},
			{"insert into group_members (group_id, user_id) values (1, 7), (2, 7)", nil},
			{"insert into group_entitlements (group_id, pool_id, entitlement) values (2, 0, 'can_view_machines')", nil},
			{"insert into ssl_keys (user_id, key, created) values (7, 'PEM', 1)", nil},
			{"insert into dns_resources (id, domain_id, name, address_ttl, created, updated) values (1, 0, '@', 0, 1, 1), (2, 0, 'a', null, 1, 1)", nil},
			{"insert into dns_resource_addresses (resource_id, address_id) select 1, id from ip_addresses", nil},
			{"insert into dns_records (resource_id, rrtype, rrdata, created, updated) values (2, 'TXT', 'ä \"', 1, 1)", nil},
			{"insert into boot_sources (id, name, url, priority, keyring_data, created, updated) values (9, 'n', 'u', 7, $1, 1, 1)", []any{[]byte{0, 255}}},
			{"insert into boot_source_selections (source_id, os, release, created, updated) values (9, 'ubuntu', 'noble', 1, 1)", nil},
			{"insert into boot_source_states (source_id, checked, error, offers) values (9, 1, 'ä', '[]')", nil},
			{"insert into boot_resource_origins (resource_id, source_id) values (1, 9)", nil},
			{"insert into rack_caches (rack_id, contents, shared, updated) values (1, '[\"x\"]', 1, 1)", nil},
			{"insert into package_repositories (name, url, created, updated) values ('p', 'u', 1, 1)", nil},
			{"insert into license_keys (osystem, distro_series, license_key, created, updated) values ('windows', 'win2019', 'K', 1, 1)", nil},
			{"insert into install_trees (name, architecture, url, repositories, resource_id, error, created, updated) values ('centos/centos9', 'amd64', 'http://m/', '[\"a=b\"]', 1, 'ä', 1, 1)", nil}, {"insert into node_secrets (node_id, name, value, created) values (1, 'p', 'ä\n', 1)", nil}, {"insert into preseed_templates (name, content, created, updated) values ('curtin_userdata_ubuntu', '{{.node.hostname}} ä', 1, 1)", nil},
		} {
			if _, err := tx.Exec(s.q, s.args...); err != nil {
				return fmt.Errorf("%s: %w", s.q, err)
			}
		}
		_, err := tx.Revision()
		return err
	})
}

func export(t *testing.T, db *storage.DB) string {
	t.Helper()
	var b strings.Builder
	if err := db.Export(ctx, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestExportImport(t *testing.T) {
	engines := map[string]func(testing.TB) string{"sqlite": storagetest.SQLiteDSN}
	if os.Getenv("TEST_POSTGRES") != "" {
		engines["postgres"] = storagetest.PostgresDSN
	}
	open := func(t *testing.T, dsn string) *storage.DB {
		db, err := storage.Open(ctx, dsn, storage.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	for fromName, from := range engines {
		for toName, to := range engines {
			t.Run(fromName+" to "+toName, func(t *testing.T) {
				a, b := open(t, from(t)), open(t, to(t))
				fill(t, a)
				first := export(t, a)
				for _, table := range tables(t, a) {
					if !strings.Contains(first, `{"table":"`+table+`"`) {
						t.Errorf("table %s is not in the export", table)
					}
				}
				if err := b.Import(ctx, strings.NewReader(first)); err != nil {
					t.Fatal(err)
				}
				if second := export(t, b); second != first {
					t.Errorf("the second export differs:\n%s", firstDifference(first, second))
				}
				u := addUser(t, b, "after") // numbering goes on
				if u.ID <= 8 {
					t.Errorf("the next user has id %d", u.ID)
				}
				if n, err := b.WaitRevision(ctx, 0); err != nil || n != 1 {
					t.Errorf("revision %d, %v", n, err)
				}
				if err := b.Import(ctx, strings.NewReader(first)); err == nil {
					t.Error("imported into a store in use")
				}
			})
		}
	}
}

func tables(t *testing.T, db *storage.DB) (names []string) {
	t.Helper()
	q := "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' and name not like 'goose_%'"
	if db.Engine() == "postgres" {
		q = "select table_name from information_schema.tables where table_schema = current_schema() and table_name not like 'goose_%'"
	}
	read(t, db, func(tx *storage.Tx) error {
		rows, err := tx.Query(q)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				return err
			}
			names = append(names, s)
		}
		return rows.Err()
	})
	if len(names) < 30 {
		t.Fatalf("only %d tables", len(names))
	}
	return names
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return x[i] + "\n" + y[i]
		}
	}
	return fmt.Sprintf("%d and %d lines", len(x), len(y))
}

func TestImportRefuses(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		whole := export(t, db)
		for name, text := range map[string]string{
			"nothing":       "",
			"not ours":      `{"a":1}`,
			"other schema":  `{"ingot_export":1,"schema":99}`,
			"cut":           whole[:len(whole)-20],
			"unknown table": whole + `{"table":"sqlite_master","row":{}}`,
			"missing field": whole + `{"table":"boots","row":{"id":1}}`,
			"wrong order":   whole + `{"table":"settings","row":{"name":"a","value":"1"}}`,
			"odd value":     whole + `{"table":"boots","row":{"id":[1],"node_id":null,"mac":"","rack":"","purpose":"","steps":"","verdict":"","started":1,"updated":1}}`,
		} {
			if err := db.Import(ctx, strings.NewReader(text)); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
		if again := export(t, db); again != whole {
			t.Errorf("a refused import changed something:\n%s", firstDifference(whole, again))
		}
	})
}

func TestSQLiteFileIsPrivate(t *testing.T) {
	dir := t.TempDir()
	db, err := storage.Open(ctx, "sqlite:"+dir+"/a b?#%.db", storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	info, err := os.Stat(dir + "/a b?#%.db")
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
		t.Errorf("%v, %v", info, err)
	}
	for _, dsn := range []string{"", "sqlite:", "sqlite::memory:", "mysql://x", "sqlite:" + dir + "/no/such/folder.db", "postgres://u:geheim@127.0.0.1:1/x"} {
		if _, err := storage.Open(ctx, dsn, storage.Options{}); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%q: %v", dsn, err)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, durable := range []bool{true, false} {
		for _, workers := range []int{1, 16} {
			b.Run(fmt.Sprintf("sync=%v/writers=%d", durable, workers), func(b *testing.B) {
				var opts []storagetest.Option
				if durable {
					opts = append(opts, storagetest.WithSync())
				}
				db := storagetest.New(b, opts...)
				var wg sync.WaitGroup
				b.ResetTimer()
				var n atomic.Int64
				for range workers {
					wg.Go(func() {
						for n.Add(1) <= int64(b.N) {
							if err := db.Write(ctx, func(tx *storage.Tx) error {
								return tx.InsertEvent(&storage.Event{Type: "READY", Level: 20, Description: "a description"})
							}); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/float64(max(db.Stats().Commits, 1)), "writes/commit")
			})
		}
	}
}

func BenchmarkRead(b *testing.B) {
	db := storagetest.New(b)
	u := storage.User{Username: "anna", IsActive: true}
	write(b, db, func(tx *storage.Tx) error {
		u.ID = 0
		if err := tx.InsertUser(&u); err != nil {
			return err
		}
		return tx.InsertToken(&storage.APIToken{UserID: u.ID, ConsumerKey: "c", TokenKey: "t", TokenSecret: "s"})
	})
	for b.Loop() {
		read(b, db, func(tx *storage.Tx) error { _, _, err := tx.Credentials("t"); return err })
	}
}

func TestTextThatNoColumnTakes(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		for _, bad := range []string{"a\x00b", "\xff"} {
			if err := db.Write(ctx, func(tx *storage.Tx) error { return tx.InsertUser(&storage.User{Username: bad}) }); !errors.Is(err, storage.ErrInvalid) {
				t.Errorf("%q written: %v", bad, err)
			}
			if err := db.Read(ctx, func(tx *storage.Tx) error { _, err := tx.UserByName(bad); return err }); !errors.Is(err, storage.ErrInvalid) {
				t.Errorf("%q looked up: %v", bad, err)
			}
			if err := db.Write(ctx, func(tx *storage.Tx) error { _ = tx.InsertUser(&storage.User{Username: bad}); return nil }); err == nil {
				t.Errorf("%q: a transaction whose error was overlooked went through", bad)
			}
		}
		if n := count(t, db, "select count(*) from users"); n != 0 {
			t.Errorf("%d users", n)
		}
	})
}

func TestManyDifferentStatements(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		for i := range 1500 {
			if n := count(t, db, fmt.Sprintf("select %d + count(*) from users", i)); n != int64(i) {
				t.Fatalf("%d: %d", i, n)
			}
		}
		write(t, db, func(tx *storage.Tx) error {
			for i := range 1500 {
				if _, err := tx.Exec(fmt.Sprintf("update users set email = '' where id = %d", i)); err != nil {
					return err
				}
			}
			return nil
		})
		addUser(t, db, "u")
	})
}

func TestReadersDoNotWaitForAWriter(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		addUser(t, db, "before")
		write(t, db, func(tx *storage.Tx) error {
			if err := tx.InsertUser(&storage.User{Username: "now"}); err != nil {
				return err
			}
			if n := count(t, db, "select count(*) from users"); n != 1 { // from within the write
				t.Errorf("a reader sees %d users", n)
			}
			return nil
		})
		c, cancel := context.WithCancel(ctx)
		cancel()
		if err := db.Read(c, func(tx *storage.Tx) error { _, err := tx.Users(); return err }); !errors.Is(err, context.Canceled) {
			t.Errorf("a read under a context that is over: %v", err)
		}
		if n := count(t, db, "select count(*) from users"); n != 2 {
			t.Errorf("%d users", n)
		}
	})
}

func TestOpenRowsSurviveAPanic(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		for range 20 { // more than there are readers
			func() {
				defer func() { _ = recover() }()
				_ = db.Read(ctx, func(tx *storage.Tx) error {
					if _, err := tx.Query("select id from zones"); err != nil { // and rows left open
						t.Error(err)
					}
					panic("on purpose")
				})
			}()
		}
		func() {
			defer func() { _ = recover() }()
			_ = db.Write(ctx, func(tx *storage.Tx) error {
				if _, err := tx.Query("select id from zones"); err != nil {
					t.Error(err)
				}
				panic("on purpose")
			})
		}()
		if n := count(t, db, "select count(*) from zones"); n != 1 {
			t.Errorf("%d zones", n)
		}
		addUser(t, db, "after")
	})
}
