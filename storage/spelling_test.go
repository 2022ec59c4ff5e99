package storage_test

import (
	"testing"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// A MAC address is read as it was typed, as long as it is still that address.
func TestSpelledMAC(t *testing.T) {
	for _, c := range []struct{ mac, typed, want string }{
		{"52:54:00:aa:bb:cc", "", "52:54:00:aa:bb:cc"},
		{"52:54:00:aa:bb:cc", "52:54:00:AA:BB:CC", "52:54:00:AA:BB:CC"},
		{"52:54:00:aa:bb:cc", "52-54-00-aA-Bb-cc", "52-54-00-aA-Bb-cc"},
		{"52:54:00:aa:bb:cc", "5254.00AA.BBCC", "5254.00AA.BBCC"},
		{"52:54:00:aa:bb:cc", "525400aabbcc", "525400aabbcc"},
		{"52:54:00:aa:bb:cd", "52:54:00:AA:BB:CC", "52:54:00:aa:bb:cd"},
		{"52:54:00:aa:bb:cc", "52:54:00:AA:BB", "52:54:00:aa:bb:cc"},
		{"52:54:00:aa:bb:cc", "52:54:00:AA:BB:CC:DD", "52:54:00:aa:bb:cc"},
		{"", "52:54:00:AA:BB:CC", ""},
	} {
		i := storage.Interface{MACAddress: c.mac, MACTyped: c.typed}
		if got := i.SpelledMAC(); got != c.want {
			t.Errorf("%q typed as %q: %q, want %q", c.mac, c.typed, got, c.want)
		}
	}
}

func TestTypedMACIsKept(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		err := db.Write(t.Context(), func(tx *storage.Tx) error {
			n := storage.Node{SystemID: "abc123", Hostname: "h", DomainID: storage.DefaultDomainID, ZoneID: storage.DefaultZoneID}
			if err := tx.InsertNode(&n); err != nil {
				return err
			}
			i := storage.Interface{NodeID: n.ID, Name: "eth0", MACAddress: "52:54:00:aa:bb:cc", MACTyped: "52:54:00:AA:BB:CC"}
			if err := tx.InsertInterface(&i); err != nil {
				return err
			}
			other := storage.Interface{NodeID: n.ID, Name: "eth1", MACAddress: "52:54:00:aa:bb:dd"}
			if err := tx.InsertInterface(&other); err != nil {
				return err
			}
			other.MACTyped = "52-54-00-AA-BB-DD"
			if err := tx.UpdateInterface(&other); err != nil {
				return err
			}
			b, err := tx.LoadMachine("abc123")
			if err != nil {
				return err
			}
			for k, want := range []string{"52:54:00:AA:BB:CC", "52-54-00-AA-BB-DD"} {
				if got := b.Interfaces[k].SpelledMAC(); got != want {
					t.Errorf("loaded as %q, want %q", got, want)
				}
			}
			found, err := tx.InterfacesByMAC("52:54:00:aa:bb:cc")
			if len(found) != 1 || found[0].SpelledMAC() != "52:54:00:AA:BB:CC" {
				t.Errorf("found %+v", found)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
