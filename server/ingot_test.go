package server_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

// A change wakes who waits for it; without one the answer comes after the wait, with the revision as it is.
func TestChanges(t *testing.T) {
	e := servertest.New(t)
	read := func(since int64, wait int) (c api.IngotChanges) {
		a := e.User.Get(fmt.Sprintf("/ingot/v1/changes?since=%d&wait=%d", since, wait))
		a.Into(t, &c)
		return c
	}
	now := read(1<<40, 0).Revision
	woken := make(chan int64, 1)
	begin := time.Now()
	go func() { woken <- read(now, 60).Revision }()
	time.Sleep(20 * time.Millisecond) // let it wait; without this the test is only weaker
	err := e.DB.Write(context.Background(), func(tx *storage.Tx) error { _, err := tx.Revision(); return err })
	if err != nil {
		t.Fatal(err)
	}
	if got := <-woken; got <= now || time.Since(begin) > 30*time.Second {
		t.Errorf("woken at %d after %v, was at %d", got, time.Since(begin), now)
	}
	if got := read(now+1, 0).Revision; got != now+1 {
		t.Errorf("no change: %d, want %d", got, now+1)
	}
	for path, want := range map[string]int{"/ingot/v1/changes?wait=61": 400, "/ingot/v1/changes?since=x": 400, "/ingot/v1/changes/": 404} {
		if a := e.User.Get(path); a.Status != want {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	if a := e.Anon.Get("/ingot/v1/changes"); a.Status != 401 {
		t.Errorf("anonymous: %d", a.Status)
	}
}

func TestTimeline(t *testing.T) {
	e := servertest.New(t)
	if a := e.Admin.Get("/ingot/v1/machines/abcdef/timeline"); a.Status != 404 || a.Text() != "No Machine matches the given query." {
		t.Errorf("unknown machine: %d %s", a.Status, a.Body)
	}
	const mac = "52:54:00:00:00:01"
	a := e.Admin.Post("machines/", "architecture", "amd64/generic", "mac_addresses", mac, "commission", "false", "power_type", "manual")
	var m api.Machine
	if a.Into(t, &m); a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	err := e.P.RecordBoots(context.Background(), "rack01", []api.BootStep{
		{At: time.Now(), Kind: "dhcp-offer", MAC: mac, Protocol: "dhcp", Purpose: "commissioning"},
		{At: time.Now().Add(time.Second), Kind: "loader", MAC: mac, Protocol: "tftp", Path: "bootx64.efi"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var boots []api.IngotBoot
	e.User.Get("/ingot/v1/machines/"+m.SystemID+"/timeline").Into(t, &boots)
	if len(boots) != 1 || boots[0].MAC != mac || len(boots[0].Steps) != 2 || boots[0].Steps[1].Step != "loader" {
		t.Errorf("boots %+v", boots)
	}
	if a := e.User.Get("/ingot/v1/machines/" + m.SystemID + "/timeline?limit=0"); a.Status != 400 {
		t.Errorf("limit 0: %d", a.Status)
	}
}
