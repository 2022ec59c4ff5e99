package provisioner

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

func TestPythonPairs(t *testing.T) {
	for in, want := range map[string]string{"x": `'x'`, "it's": `"it's"`, `both ' and "`: `'both \' and "'`, "a\\b\n\t\r\x01": `'a\\b\n\t\r\x01'`, "é√": `'é√'`, "\u200b": `'\u200b'`} {
		if got := pythonString(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	if got := pythonPairs([]Pair{{"tags", []string{"a", "b"}}, {"mem", []string{"1"}}}); got != `[('tags', ['a', 'b']), ('mem', ['1'])]` {
		t.Error(got)
	}
}

// TestPermissionsAndStates calls the operations as those who may not, and in states that do not allow them.
func TestPermissionsAndStates(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	id := x.ready("bios")
	refuse := func(what string, want Kind, err error) {
		t.Helper()
		if kindOf(err) != want {
			t.Errorf("%s: %v, want kind %d", what, err, want)
		}
	}
	_, err := x.s.Allocate(context.Background(), AllocateRequest{})
	refuse("allocate by nobody", Unauthorized, err)
	if _, err = x.s.Allocate(x.as(x.user), AllocateRequest{}); err != nil {
		t.Fatal(err)
	}
	_, err = x.s.Deploy(x.as(x.other), id, DeployRequest{DistroSeries: "debian"})
	refuse("deploy of a foreign machine", Forbidden, err)
	_, err = x.s.Deploy(x.as(x.admin), id, DeployRequest{DistroSeries: "debian"})
	refuse("deploy of a foreign machine by an administrator", Forbidden, err)
	_, err = x.s.Release(x.as(x.other), id, ReleaseRequest{})
	refuse("release", Forbidden, err)
	_, err = x.s.ReleaseMachines(x.as(x.other), []string{id}, "")
	refuse("bulk release", Forbidden, err)
	_, err = x.s.Commission(x.as(x.user), id, CommissionParams{})
	refuse("commission by the owner", Forbidden, err)
	_, err = x.s.Commission(x.as(x.admin), id, CommissionParams{})
	refuse("commission of an allocated machine", Invalid, err)
	_, err = x.s.Deploy(x.as(x.user), id, DeployRequest{DistroSeries: "bad"})
	refuse("bad series", Invalid, err)
	if e := err.(*Error); e.Fields["distro_series"][0] != "'bad' is not a valid distro_series. It should be one of: '', 'custom/debian'." {
		t.Error(e.Fields)
	}
	_, err = x.s.Deploy(x.as(x.user), id, DeployRequest{DistroSeries: "debian", HWEKernel: "bad"})
	refuse("bad kernel", Invalid, err)
	_, err = x.s.Lock(x.as(x.user), id, "")
	refuse("lock of an allocated machine", Conflict, err)
	if b := x.get(id); b.Node.Status != storage.StatusAllocated || len(ipsOf(b)) != 0 {
		t.Fatalf("a refused call changed the machine: %v %v", b.Node.Status, ipsOf(b))
	}
	x.must(x.s.Deploy(x.as(x.user), id, DeployRequest{DistroSeries: "custom/debian"}))
	x.must(x.s.Lock(x.as(x.user), id, ""))
	for what, do := range map[string]func() error{
		"release": func() error { _, err := x.s.Release(x.as(x.user), id, ReleaseRequest{}); return err },
		"abort":   func() error { _, err := x.s.Abort(x.as(x.user), id, ""); return err },
		"delete":  func() error { return x.s.DeleteMachine(x.as(x.admin), id, true) },
		"update":  func() error { _, err := x.s.UpdateMachine(x.as(x.admin), id, MachineSpec{}); return err },
		"power":   func() error { _, err := x.s.PowerOff(x.as(x.user), id, "", ""); return err },
	} {
		refuse(what+" of a locked machine", Forbidden, do())
	}
	if p, err := x.s.PowerParameters(x.as(x.admin), id); err != nil || p["power_pass"] != "secret" || p["power_boot_type"] != "auto" {
		t.Errorf("%v %v", p, err)
	}
	x.must(x.s.Unlock(x.as(x.user), id, ""))
	x.must(x.s.Abort(x.as(x.user), id, "changed my mind"))
	if b := x.status(id, storage.StatusAllocated); b.Node.OwnerID == nil || *b.Node.OwnerID != x.user.ID {
		t.Error("abort lost the owner")
	}
	if act := x.job(id, api.PowerResult{State: "off"}); act != PowerOff {
		t.Errorf("abort ordered %q", act)
	}
	if ips := ipsOf(x.get(id)); len(ips) != 0 {
		t.Errorf("addresses of an aborted deployment: %v", ips)
	}
	_, err = x.s.MarkBroken(x.as(x.admin), id, "x")
	refuse("mark_broken by another", Forbidden, err)
	x.must(x.s.MarkBroken(x.as(x.user), id, "smells"))
	if b := x.status(id, storage.StatusBroken); b.Node.ErrorDescription != "smells" || b.Node.PreviousStatus != storage.StatusAllocated {
		t.Errorf("%+v", b.Node)
	}
	x.must(x.s.MarkFixed(x.as(x.admin), id, ""))
	if b := x.status(id, storage.StatusReady); b.Node.OwnerID != nil || b.Node.ErrorDescription != "" {
		t.Errorf("%+v", b.Node)
	}
}

// TestQueryPower waits for the rack's answer.
func TestQueryPower(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	id := x.ready("bios")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			if x.job(id, api.PowerResult{State: "on"}) == PowerQuery {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	state, err := x.s.QueryPower(x.as(x.user), id)
	<-done
	if err != nil || state != "on" {
		t.Fatalf("%q %v", state, err)
	}
	// A query that is planned for later is asked at once; a failing BMC is 503 with its reason.
	go func() {
		for range 200 {
			if x.job(id, api.PowerResult{State: "error", Error: "no route"}) != "" {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	if _, err := x.s.QueryPower(x.as(x.admin), id); kindOf(err) != Unavailable || !strings.Contains(err.Error(), "no route") {
		t.Fatal(err)
	}
}

// TestPreviousStatus: a chain within one request remembers where it began, and rescue what was before it.
func TestPreviousStatus(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	id := x.ready("bios")
	if _, err := x.s.Allocate(x.as(x.admin), AllocateRequest{}); err != nil {
		t.Fatal(err)
	}
	x.must(x.s.Release(x.as(x.admin), id, ReleaseRequest{})) // it is off: Allocated, Releasing and Ready in one step
	if n := x.status(id, storage.StatusReady).Node; n.PreviousStatus != storage.StatusAllocated {
		t.Fatalf("previous is %v", n.PreviousStatus)
	}
	x.must(x.s.RescueMode(x.as(x.admin), id))
	x.job(id, api.PowerResult{State: "on"})
	x.signal(id, Signal{Status: "OK"})
	if n := x.status(id, storage.StatusRescueMode).Node; n.PreviousStatus != storage.StatusReady {
		t.Fatalf("previous is %v", n.PreviousStatus)
	}
	x.must(x.s.ExitRescueMode(x.as(x.admin), id))
	x.job(id, api.PowerResult{State: "off"})
	if n := x.status(id, storage.StatusReady).Node; n.OwnerID != nil {
		t.Fatalf("%+v", n)
	}
}

// TestTrail: what was looked at in vain is not looked at again, and is all the same found as soon as it fits; and nobody is refused for it.
func TestTrail(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newSite(t, db)
		storagetest.FleetOf(t, db, 12, 1, 1) // each costs more than the one before
		ctx := x.as(x.admin)
		want := []Pair{{"tags", []string{"wanted"}}}
		tag := func(i int, on bool) {
			t.Helper()
			x.write(func(tx *storage.Tx) error {
				n, err := tx.Node(fmt.Sprintf("n%05x", i))
				if err == nil && on {
					err = tx.TagNode(n.ID, "wanted")
				} else if err == nil {
					err = tx.UntagNode(n.ID, "wanted")
				}
				return err
			})
		}
		take := func(i int) {
			t.Helper()
			a, err := x.s.Allocate(ctx, AllocateRequest{Constraints: want})
			if err != nil || a.Machine.Node.SystemID != fmt.Sprintf("n%05x", i) {
				t.Fatalf("%+v %v, want machine %d", a, err, i)
			}
		}
		for _, i := range []int{5, 6, 7, 8, 9} {
			tag(i, true)
		}
		take(5)
		tr := x.s.trail(ctx, want)
		if tr.from == nil {
			t.Fatal("no trail was left")
		}
		take(6)
		tag(2, true) // a cheaper one fits now
		take(2)
		take(7)
		if _, err := x.s.Release(ctx, fmt.Sprintf("n%05x", 5), ReleaseRequest{}); err != nil {
			t.Fatal(err)
		}
		x.runJobs()
		if n := x.get(fmt.Sprintf("n%05x", 5)).Node; n.Status == storage.StatusReady {
			take(5)
		}
		take(8)
		// Another region's write, of which this process knows nothing: a cheaper machine may stay unseen for a moment, but it is found when
		// there is no other.
		take(9)
		if err := db.Write(storage.OnlyTakes(context.Background()), func(tx *storage.Tx) error {
			n, err := tx.Node("n00001")
			if err != nil {
				return err
			}
			return tx.TagNode(n.ID, "wanted")
		}); err != nil {
			t.Fatal(err)
		}
		take(1)
		if _, err := x.s.Allocate(ctx, AllocateRequest{Constraints: want}); kindOf(err) != Conflict {
			t.Fatal(err)
		}
	})
}
