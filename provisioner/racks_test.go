package provisioner

import (
	"errors"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

func TestRegisterRack(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		s := New(Config{DB: db})
		hello := api.RackHello{Hostname: "Host.example.com", Architecture: "amd64", Version: "1"}
		region, err := s.RegisterRegion(t.Context(), hello)
		if err != nil || region.NodeType != storage.NodeRegion || region.Hostname != "host" {
			t.Fatalf("%+v, %v", region, err)
		}
		rack, err := s.RegisterRack(t.Context(), hello, storage.NodeRack, "one")
		if err != nil || rack.ID != region.ID || rack.NodeType != storage.NodeRegionRack {
			t.Fatalf("a rack beside the region: %+v, %v", rack, err)
		}
		// The region's next start does not take the rack's certificate away; enrolling again replaces it.
		if again, err := s.RegisterRegion(t.Context(), hello); err != nil || again.NodeType != storage.NodeRegionRack || again.CertFingerprint != "one" {
			t.Errorf("%+v, %v", again, err)
		}
		if _, err := s.RegisterRack(t.Context(), hello, storage.NodeRack, "two"); err != nil {
			t.Fatal(err)
		}
		for fp, known := range map[string]bool{"one": false, "two": true, "": false, "three": false} {
			if _, err := s.RackByCertificate(t.Context(), fp); (err == nil) != known || err != nil && !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("certificate %q: %v", fp, err)
			}
		}
		for name, h := range map[string]api.RackHello{
			"host name": {Hostname: "not a name"}, "empty": {}, "version": {Hostname: "x", Version: strings.Repeat("v", 1000)},
			"interface": {Hostname: "x", Interfaces: []api.RackInterface{{Addresses: []string{}}}},
			"address":   {Hostname: "x", Interfaces: []api.RackInterface{{Name: "e", Addresses: []string{"10.0.0.1"}}}},
		} {
			var pe *Error
			if _, err := s.RegisterRack(t.Context(), h, storage.NodeRack, "f"); !errors.As(err, &pe) || pe.Kind != Invalid {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := s.RegisterRack(t.Context(), hello, storage.NodeMachine, "f"); err == nil {
			t.Error("a rack of type machine")
		}
	})
}

func TestClip(t *testing.T) {
	for in, want := range map[string]string{"plain": "plain", "a\nb\x00c\x7f": "a?b?c?", "bad\xff": "bad?", strings.Repeat("é", 200): strings.Repeat("é", 100) + "…"} {
		if got := clip(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func FuzzClip(f *testing.F) {
	f.Add("x\n")
	f.Fuzz(func(t *testing.T, s string) {
		if got := clip(s); len(got) > maxBootText+len("…") || strings.ContainsAny(got, "\n\r\x00") {
			t.Errorf("%q", got)
		}
	})
}
