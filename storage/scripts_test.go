package storage_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

func TestScriptRows(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		change(t, db, func(tx *storage.Tx) error {
			n := aNode("abc123")
			if err := tx.InsertNode(n); err != nil {
				return err
			}
			note := "first"
			s := storage.Script{Name: "probe", Type: storage.SetTesting, Content: []byte("#!/bin/sh\n"), Tags: []string{"a"}, Timeout: 90e9, Parameters: []byte(`{"x":{"type":"string"}}`)}
			if err := tx.InsertScript(&s, &note); err != nil {
				return err
			}
			first := s.VersionID
			if s.Content = []byte("#!/bin/bash\n"); s.ID == 0 {
				t.Error("no id")
			}
			if err := tx.AddScriptVersion(&s, nil); err != nil {
				return err
			}
			s.Title = "T"
			if err := tx.UpdateScript(&s); err != nil {
				return err
			}
			got, err := tx.ScriptByName("probe")
			if err != nil || got.VersionID != s.VersionID || string(got.Content) != "#!/bin/bash\n" || got.Title != "T" || got.Timeout != 90e9 || !slices.Equal(got.Tags, []string{"a"}) {
				t.Errorf("%+v %v", got, err)
			}
			v, err := tx.ScriptVersions([]int64{s.ID}, true)
			if err != nil || len(v[s.ID]) != 2 || v[s.ID][0].ID != s.VersionID || v[s.ID][1].Comment == nil || *v[s.ID][1].Comment != note {
				t.Errorf("%+v %v", v, err)
			}
			if err := tx.RevertScript(s.ID, first); err != nil {
				return err
			}
			if got, err = tx.Script(s.ID); err != nil || got.VersionID != first || string(got.Content) != "#!/bin/sh\n" {
				t.Errorf("%+v %v", got, err)
			}

			set := storage.ScriptSet{NodeID: n.ID, Type: storage.SetTesting, Requested: []string{"a", "b"}}
			if err := tx.AddScriptSet(&set, []storage.ScriptResult{{Name: "probe", Instance: "disk:sda", ScriptID: &s.ID, VersionID: &first},
				{Name: "probe", Instance: "disk:sdb", ScriptID: &s.ID, VersionID: &first}, {Name: "other", Status: storage.ScriptPassed}}); err != nil {
				return err
			}
			results, err := tx.ScriptResultsOf([]int64{set.ID}, true)
			if err != nil || len(results) != 3 || results[1].Instance != "disk:sda" || results[2].Instance != "disk:sdb" || string(results[1].Parameters) != "{}" {
				t.Fatalf("%+v %v", results, err)
			}
			r := results[1]
			r.ScriptID, r.VersionID, r.Status, r.Output = nil, nil, storage.ScriptSkipped, []byte{0, 255}
			if err := tx.SaveScriptResult(&r); err != nil { // who reports does not know the script
				return err
			}
			if r, err = tx.ScriptResultByID(n.ID, r.ID); err != nil || r.ScriptID == nil || *r.ScriptID != s.ID || len(r.Output) != 2 {
				t.Errorf("%+v %v", r, err)
			}
			passed := func(want bool) {
				t.Helper()
				if ok, err := tx.SetPassed(n.ID, storage.SetTesting); err != nil || ok != want {
					t.Errorf("passed %v %v", ok, err)
				}
			}
			passed(false)
			if err := tx.SetSuppressed([]int64{results[2].ID}, true); err != nil {
				return err
			}
			passed(true)
			if err := tx.DeleteScript(s.ID); err != nil { // what it has reported stays
				return err
			}
			if r, err = tx.ScriptResultByID(n.ID, r.ID); err != nil || r.ScriptID != nil || r.VersionID != nil {
				t.Errorf("%+v %v", r, err)
			}
			for range 4 {
				if _, err := tx.InsertScriptSet(n.ID, storage.SetTesting); err != nil {
					return err
				}
			}
			if err := tx.TrimScriptSets(n.ID, storage.SetTesting, 2); err != nil {
				return err
			}
			sets, err := tx.ScriptSets(n.ID)
			if err != nil || len(sets) != 2 || sets[0].ID < sets[1].ID {
				t.Errorf("%+v %v", sets, err)
			}
			current, err := tx.CurrentScriptSets(storage.NodeFilter{SystemIDs: []string{"abc123"}})
			if err != nil || len(current) != 1 || current[0].ID != sets[0].ID {
				t.Errorf("%+v %v", current, err)
			}
			return nil
		})
	})
}

func TestNotesFilesDevices(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		change(t, db, func(tx *storage.Tx) error {
			var users [2]storage.User
			for i := range users {
				users[i] = storage.User{Username: fmt.Sprint("u", i), IsActive: true}
				if err := tx.InsertUser(&users[i]); err != nil {
					return err
				}
			}
			f := storage.File{UserID: users[0].ID, Filename: "a/b", Content: []byte{0, 1}, Key: "k1"}
			if err := tx.SaveFile(&f); err != nil {
				return err
			}
			again := storage.File{UserID: users[0].ID, Filename: "a/b", Content: []byte("x"), Key: "k2"}
			if err := tx.SaveFile(&again); err != nil || again.Key != "k1" || again.ID != f.ID {
				t.Errorf("%+v %v", again, err)
			}
			if got, err := tx.FileByKey("k1"); err != nil || string(got.Content) != "x" {
				t.Errorf("%+v %v", got, err)
			}
			if _, err := tx.File(users[1].ID, "a/b"); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("another's file: %v", err)
			}
			if err := tx.DeleteFile(users[1].ID, "a/b"); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("another's file: %v", err)
			}

			mine := storage.Notification{UserID: &users[0].ID, Message: "m", Category: "info"}
			all := storage.Notification{Users: true, Message: "u", Category: "info"}
			boss := storage.Notification{Admins: true, Message: "a", Category: "info"}
			for _, n := range []*storage.Notification{&mine, &all, &boss} {
				if err := tx.InsertNotification(n); err != nil {
					return err
				}
			}
			texts := func(u storage.User, admin bool) (out []string) {
				list, err := tx.NotificationsFor(u.ID, admin)
				if err != nil {
					t.Error(err)
				}
				for _, n := range list {
					out = append(out, n.Message)
				}
				return out
			}
			if got := texts(users[0], false); !slices.Equal(got, []string{"m", "u"}) {
				t.Errorf("user: %v", got)
			}
			if got := texts(users[1], true); !slices.Equal(got, []string{"a"}) {
				t.Errorf("administrator: %v", got)
			}
			for range 2 {
				if err := tx.DismissNotification(all.ID, users[0].ID); err != nil {
					return err
				}
			}
			if got := texts(users[0], false); !slices.Equal(got, []string{"m"}) {
				t.Errorf("after dismissal: %v", got)
			}

			n := aNode("abc123")
			if err := tx.InsertNode(n); err != nil {
				return err
			}
			nic := storage.Interface{NodeID: n.ID, Name: "eth0", MACAddress: "52:54:00:00:00:01"}
			if err := tx.InsertInterface(&nic); err != nil {
				return err
			}
			at := "0000:01:00.0"
			d := storage.HardwareDevice{NodeID: n.ID, Bus: storage.BusPCIE, VendorID: "8086", ProductID: "1521", PCIAddress: &at, InterfaceID: &nic.ID}
			if err := tx.SaveNodeDevice(&d); err != nil {
				return err
			}
			d.Driver = "igb"
			if err := tx.SaveNodeDevice(&d); err != nil {
				return err
			}
			if err := tx.DeleteInterface(nic.ID); err != nil {
				return err
			}
			list, err := tx.NodeDevices([]int64{n.ID})
			if err != nil || len(list) != 1 || list[0].Driver != "igb" || list[0].InterfaceID != nil || *list[0].PCIAddress != at || string(list[0].VPD) != "{}" {
				t.Errorf("%+v %v", list, err)
			}

			tag := storage.Tag{Name: "t", Definition: "//x"}
			if err := tx.InsertTag(&tag); err != nil {
				return err
			}
			for _, c := range []struct{ add, remove, want []int64 }{{[]int64{n.ID, 999}, nil, []int64{n.ID}}, {[]int64{n.ID}, nil, nil}, {nil, []int64{n.ID, 999}, []int64{n.ID}}, {nil, nil, nil}} {
				if got, err := tx.SetNodeTags(tag.ID, c.add, c.remove); err != nil || !slices.Equal(got, c.want) {
					t.Errorf("%+v: %v %v", c, got, err)
				}
			}
			return nil
		})
	})
}
