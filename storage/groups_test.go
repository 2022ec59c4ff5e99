package storage_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

func TestGroups(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		write(t, db, func(tx *storage.Tx) error {
			anna, bob := storage.User{Username: "anna"}, storage.User{Username: "bob", IsSuperuser: true}
			for _, u := range []*storage.User{&anna, &bob} {
				if err := tx.InsertUser(u); err != nil {
					return err
				}
			}
			names := func(groupID int64) (out []string) {
				users, err := tx.GroupMembers(groupID)
				if err != nil {
					t.Fatal(err)
				}
				for _, u := range users {
					out = append(out, u.Username)
				}
				return out
			}
			if a, u := names(storage.AdministratorsGroupID), names(storage.UsersGroupID); !slices.Equal(a, []string{"bob"}) || !slices.Equal(u, []string{"anna"}) {
				t.Errorf("administrators %v, users %v", a, u)
			}
			g := storage.UserGroup{Name: "lab", Description: "d"}
			if err := tx.InsertUserGroup(&g); err != nil {
				return err
			}
			if err := tx.Savepoint(func() error { return tx.InsertUserGroup(&storage.UserGroup{Name: "lab"}) }); !errors.Is(err, storage.ErrConflict) {
				t.Errorf("a second group of the name: %v", err)
			}
			pool := storage.Pool{Name: "p"}
			if err := tx.InsertPool(&pool); err != nil {
				return err
			}
			version := func() int64 {
				u, err := tx.User(anna.ID)
				if err != nil {
					t.Fatal(err)
				}
				return u.AccessVersion
			}
			last := version()
			grown := func(what string, err error) {
				t.Helper()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if v := version(); v <= last {
					t.Errorf("%s: the access version is %d after %d", what, v, last)
				} else {
					last = v
				}
			}
			grown("add member", tx.AddGroupMember(g.ID, anna.ID))
			if err := tx.Savepoint(func() error { return tx.AddGroupMember(g.ID, anna.ID) }); !errors.Is(err, storage.ErrConflict) {
				t.Errorf("a member twice: %v", err)
			}
			grown("global", tx.AddGroupEntitlement(g.ID, nil, "can_view_machines"))
			grown("again", tx.AddGroupEntitlement(g.ID, nil, "can_view_machines"))
			grown("pool", tx.AddGroupEntitlement(g.ID, &pool.ID, "can_edit_machines"))
			list, err := tx.GroupEntitlements(g.ID)
			if err != nil || len(list) != 2 || list[0].PoolID != nil || list[1].PoolID == nil || *list[1].PoolID != pool.ID {
				t.Errorf("%v, %v", list, err)
			}
			if all, err := tx.UserEntitlements(anna.ID); err != nil || len(all) != 2+len(storage.UserEntitlements) {
				t.Errorf("%v, %v", all, err)
			}
			grown("take", tx.RemoveGroupEntitlement(g.ID, nil, "can_view_machines"))
			if err := tx.DeletePool(pool.ID); err != nil {
				return err
			}
			if list, err := tx.GroupEntitlements(g.ID); err != nil || len(list) != 0 {
				t.Errorf("entitlements on a deleted pool: %v, %v", list, err)
			}
			g.Name = "lab2"
			if err := tx.UpdateUserGroup(&g); err != nil {
				return err
			}
			was, err := tx.RemoveGroupMember(g.ID, bob.ID)
			if err != nil || was {
				t.Errorf("bob was a member: %v, %v", was, err)
			}
			was, err = tx.RemoveGroupMember(g.ID, anna.ID)
			if grown("remove", err); !was {
				t.Error("anna was no member")
			}
			grown("back", tx.AddGroupMember(g.ID, anna.ID))
			grown("delete", tx.DeleteUserGroup(g.ID))
			if _, err := tx.UserGroup(g.ID); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("the deleted group: %v", err)
			}
			if all, err := tx.UserGroups(); err != nil || len(all) != 2 || all[0].Name != "Administrators" {
				t.Errorf("%v, %v", all, err)
			}
			if err := tx.SetSuperuser(anna.ID, true); err != nil {
				return err
			}
			u, err := tx.User(anna.ID)
			if err != nil || !u.IsSuperuser {
				t.Errorf("%+v, %v", u, err)
			}
			k := storage.SSLKey{UserID: anna.ID, Key: "PEM"}
			if err := tx.InsertSSLKey(&k); err != nil {
				return err
			}
			if err := tx.Savepoint(func() error { return tx.InsertSSLKey(&storage.SSLKey{UserID: anna.ID, Key: "PEM"}) }); !errors.Is(err, storage.ErrConflict) {
				t.Errorf("a certificate twice: %v", err)
			}
			if got, err := tx.SSLKey(k.ID); err != nil || got.Key != "PEM" {
				t.Errorf("%v, %v", got, err)
			}
			if list, err := tx.SSLKeys(bob.ID); err != nil || len(list) != 0 {
				t.Errorf("%v, %v", list, err)
			}
			return tx.DeleteSSLKey(k.ID)
		})
	})
}

// Visibility narrows lists as the pools of a user's groups say.
func TestVisibility(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		me, other := addUser(t, db, "me"), addUser(t, db, "other")
		var pool storage.Pool
		write(t, db, func(tx *storage.Tx) error {
			pool = storage.Pool{Name: "p"}
			if err := tx.InsertPool(&pool); err != nil {
				return err
			}
			add := func(name string, typ int64, pool *int64, owner *int64) {
				n := aNode(name)
				n.NodeType, n.PoolID, n.OwnerID, n.Status = typ, pool, owner, storage.StatusReady
				if err := tx.InsertNode(n); err != nil {
					t.Fatal(err)
				}
			}
			def := storage.DefaultPoolID
			add("free0", storage.NodeMachine, &def, nil)
			add("mine0", storage.NodeMachine, &def, &me.ID)
			add("their0", storage.NodeMachine, &def, &other.ID)
			add("free1", storage.NodeMachine, &pool.ID, nil)
			add("mine1", storage.NodeMachine, &pool.ID, &me.ID)
			add("their1", storage.NodeMachine, &pool.ID, &other.ID)
			add("mydev", storage.NodeDevice, nil, &me.ID)
			add("dev", storage.NodeDevice, nil, &other.ID)
			add("rack", storage.NodeRack, nil, nil)
			return nil
		})
		for name, c := range map[string]struct {
			v     storage.Visibility
			types []int64
			want  []string
		}{
			"everything":          {storage.Visibility{Devices: true, Controllers: true}, nil, []string{"dev", "free0", "free1", "mine0", "mine1", "mydev", "rack", "their0", "their1"}},
			"plain":               {storage.Visibility{All: []int64{}}, nil, []string{"free0", "free1", "mine0", "mine1", "mydev"}},
			"plain, machines":     {storage.Visibility{All: []int64{}}, []int64{storage.NodeMachine}, []string{"free0", "free1", "mine0", "mine1"}},
			"one pool available":  {storage.Visibility{Available: []int64{pool.ID}, All: []int64{}}, nil, []string{"free1", "mine1", "mydev"}},
			"one pool seen":       {storage.Visibility{Available: []int64{}, All: []int64{pool.ID}}, nil, []string{"free1", "mine1", "mydev", "their1"}},
			"nothing":             {storage.Visibility{Available: []int64{}, All: []int64{}}, []int64{storage.NodeMachine}, nil},
			"devices, racks":      {storage.Visibility{Available: []int64{}, All: []int64{}, Devices: true, Controllers: true}, nil, []string{"dev", "mydev", "rack"}},
			"all machines":        {storage.Visibility{}, []int64{storage.NodeMachine}, []string{"free0", "free1", "mine0", "mine1", "their0", "their1"}},
			"all machines, nodes": {storage.Visibility{}, nil, []string{"free0", "free1", "mine0", "mine1", "mydev", "their0", "their1"}},
		} {
			c.v.UserID = me.ID
			var got []string
			read(t, db, func(tx *storage.Tx) error {
				nodes, err := tx.Nodes(storage.NodeFilter{Types: c.types, Seen: &c.v})
				for _, n := range nodes {
					got = append(got, strings.TrimPrefix(n.Hostname, "host-"))
				}
				return err
			})
			if slices.Sort(got); !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
	})
}

func TestDNSNames(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		u := addUser(t, db, "anna")
		write(t, db, func(tx *storage.Tx) error {
			d := storage.Domain{Name: "lab", Authoritative: false, ForwardDNSServers: []string{"10.0.0.1:53"}}
			if err := tx.InsertDomain(&d); err != nil {
				return err
			}
			if got, err := tx.Domain(d.ID); err != nil || got.Authoritative || got.IsDefault || !slices.Equal(got.ForwardDNSServers, d.ForwardDNSServers) {
				t.Errorf("%+v, %v", got, err)
			}
			if def, err := tx.DefaultDomain(); err != nil || def.ID != storage.DefaultDomainID {
				t.Errorf("%+v, %v", def, err)
			}
			free, owned := aNode("free"), aNode("owned")
			owned.OwnerID = &u.ID
			for _, n := range []*storage.Node{free, owned} {
				if err := tx.InsertNode(n); err != nil {
					return err
				}
			}
			if err := tx.SetDefaultDomain(d.ID); err != nil {
				return err
			}
			if n, err := tx.MoveFreeNodes(storage.DefaultDomainID, d.ID); err != nil || n != 1 {
				t.Errorf("%d moved, %v", n, err)
			}
			if def, err := tx.DefaultDomain(); err != nil || def.ID != d.ID {
				t.Errorf("%+v, %v", def, err)
			}

			a, b := storage.IPAddress{IP: netip.MustParseAddr("10.0.0.9"), AllocType: storage.AllocUserReserved, UserID: &u.ID},
				storage.IPAddress{IP: netip.MustParseAddr("10.0.0.8"), AllocType: storage.AllocUserReserved}
			for _, x := range []*storage.IPAddress{&a, &b} {
				if err := tx.InsertIPAddress(x); err != nil {
					return err
				}
			}
			if list, err := tx.NamelessAddresses(); err != nil || len(list) != 2 || list[0].IP != b.IP {
				t.Errorf("%v, %v", list, err)
			}
			ttl := int64(0)
			r := storage.DNSResource{DomainID: d.ID, Name: "www", AddressTTL: &ttl}
			if err := tx.InsertDNSResource(&r); err != nil {
				return err
			}
			if err := tx.Savepoint(func() error { return tx.InsertDNSResource(&storage.DNSResource{DomainID: d.ID, Name: "www"}) }); !errors.Is(err, storage.ErrConflict) {
				t.Errorf("a name twice: %v", err)
			}
			if err := tx.SetDNSResourceAddresses(r.ID, []int64{a.ID, b.ID, a.ID}); err != nil {
				return err
			}
			if got, err := tx.DNSAddresses([]int64{r.ID}); err != nil || len(got[r.ID]) != 2 || got[r.ID][0].IP != b.IP {
				t.Errorf("%v, %v", got, err)
			}
			if list, err := tx.NamelessAddresses(); err != nil || len(list) != 0 {
				t.Errorf("%v, %v", list, err)
			}
			rec := storage.DNSRecord{ResourceID: r.ID, RRType: "TXT", RRData: "x"}
			if err := tx.InsertDNSRecord(&rec); err != nil {
				return err
			}
			if n, err := tx.DomainRecords(); err != nil || n[d.ID] != 3 {
				t.Errorf("%v, %v", n, err)
			}
			if err := tx.Savepoint(func() error { return tx.DeleteDomain(d.ID) }); !errors.Is(err, storage.ErrConflict) {
				t.Errorf("a domain with names is deleted: %v", err)
			}
			if err := tx.DeleteDNSRecord(rec); err != nil {
				return err
			}
			if got, err := tx.DNSResourceNamed(d.ID, "www"); err != nil || got.AddressTTL == nil || *got.AddressTTL != 0 {
				t.Errorf("the name went though it has addresses: %v, %v", got, err)
			}
			r.AddressTTL = nil
			if err := tx.UpdateDNSResource(&r); err != nil {
				return err
			}
			if err := tx.SetDNSResourceAddresses(r.ID, nil); err != nil {
				return err
			}
			rec.ID = 0
			if err := tx.InsertDNSRecord(&rec); err != nil {
				return err
			}
			rec.RRData = "y"
			if err := tx.UpdateDNSRecord(&rec); err != nil {
				return err
			}
			if got, err := tx.DNSRecord(rec.ID); err != nil || got.RRData != "y" {
				t.Errorf("%v, %v", got, err)
			}
			if err := tx.DeleteDNSRecord(rec); err != nil {
				return err
			}
			if _, err := tx.DNSResource(r.ID); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("a name without anything stays: %v", err)
			}
			if rows, err := tx.AddressesByIP(a.IP); err != nil || len(rows) != 1 || rows[0].ID != a.ID {
				t.Errorf("%v, %v", rows, err)
			}
			if list, err := tx.NodeAddresses(); err != nil || len(list) != 0 {
				t.Errorf("%v, %v", list, err)
			}
			return nil
		})
	})
}

func TestSources(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		write(t, db, func(tx *storage.Tx) error {
			sources, err := tx.BootSources()
			if err != nil || len(sources) != 1 || sources[0].ID != 1 {
				t.Fatalf("%v, %v", sources, err)
			}
			b := storage.BootSource{Name: "n", URL: "http://x", Priority: 9, KeyringData: []byte{0, 1}, Enabled: true}
			if err := tx.InsertBootSource(&b); err != nil {
				return err
			}
			b.SkipKeyringVerification, b.Enabled = true, false
			if err := tx.UpdateBootSource(&b); err != nil {
				return err
			}
			if got, err := tx.BootSource(b.ID); err != nil || !got.SkipKeyringVerification || got.Enabled || string(got.KeyringData) != "\x00\x01" {
				t.Errorf("%+v, %v", got, err)
			}
			x := storage.BootSourceSelection{SourceID: b.ID, OS: "ubuntu", Release: "noble", Arches: []string{"amd64", "arm64"}}
			if err := tx.InsertBootSourceSelection(&x); err != nil {
				return err
			}
			if err := tx.Savepoint(func() error {
				return tx.InsertBootSourceSelection(&storage.BootSourceSelection{SourceID: b.ID, OS: "ubuntu", Release: "noble"})
			}); !errors.Is(err, storage.ErrConflict) {
				t.Errorf("a release twice: %v", err)
			}
			x.Labels = []string{"*"}
			if err := tx.UpdateBootSourceSelection(&x); err != nil {
				return err
			}
			if got, err := tx.BootSourceSelection(b.ID, x.ID); err != nil || !slices.Equal(got.Arches, x.Arches) || !slices.Equal(got.Labels, x.Labels) {
				t.Errorf("%+v, %v", got, err)
			}
			if _, err := tx.BootSourceSelection(1, x.ID); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("a selection of another source: %v", err)
			}
			if list, err := tx.BootSourceSelections(b.ID); err != nil || len(list) != 1 {
				t.Errorf("%v, %v", list, err)
			}
			if err := tx.DeleteBootSource(b.ID); err != nil {
				return err
			}
			if err := tx.DeleteBootSourceSelection(x.ID); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("a selection outlives its source: %v", err)
			}

			main, err := tx.DefaultArchive("main_archive")
			if err != nil || !main.IsDefault || !main.Enabled || !slices.Equal(main.Arches, []string{"amd64", "i386"}) {
				t.Errorf("%+v, %v", main, err)
			}
			p := storage.PackageRepository{Name: "extra", URL: "http://e", Components: []string{"a"}, Enabled: true}
			if err := tx.InsertPackageRepository(&p); err != nil {
				return err
			}
			p.Enabled, p.Key = false, "KEY"
			if err := tx.UpdatePackageRepository(&p); err != nil {
				return err
			}
			if _, err := tx.DefaultArchive("extra"); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("a repository of the user's as default: %v", err)
			}
			if list, err := tx.PackageRepositories(); err != nil || len(list) != 3 || list[2].Key != "KEY" || list[2].Enabled {
				t.Errorf("%v, %v", list, err)
			}
			if err := tx.DeletePackageRepository(p.ID); err != nil {
				return err
			}

			k := storage.LicenseKey{OSystem: "windows", DistroSeries: "win2019", LicenseKey: "K"}
			if err := tx.InsertLicenseKey(&k); err != nil {
				return err
			}
			k.LicenseKey = "L"
			if err := tx.UpdateLicenseKey(&k); err != nil {
				return err
			}
			if got, err := tx.LicenseKeyOf("windows", "win2019"); err != nil || got.LicenseKey != "L" {
				t.Errorf("%v, %v", got, err)
			}
			for range 2 { // the second time there is none
				if err := tx.DeleteLicenseKey("windows", "win2019"); err != nil {
					return err
				}
			}
			list, err := tx.LicenseKeys()
			if len(list) != 0 {
				t.Errorf("%v", list)
			}
			return err
		})
	})
}
