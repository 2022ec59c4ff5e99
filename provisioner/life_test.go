package provisioner

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

func clocked(c *testClock) storagetest.Option { return storagetest.WithNow(c.now) }

func newClock() *testClock { return &testClock{t: time.Date(2026, 11, 25, 1, 0, 0, 0, time.UTC)} }

// TestLife carries a machine through its whole life.
func TestLife(t *testing.T) {
	for _, firmware := range []string{"bios", "uefi"} {
		t.Run(firmware, func(t *testing.T) {
			storagetest.Each(t, func(t *testing.T, db *storage.DB) {
				x := newSite(t, db)
				id := x.ready(firmware)
				b := x.get(id)
				n := b.Node
				if n.CPUCount != 2 || n.Memory != 4096 || n.CPUSpeed != 2400 || b.Metadata["cpu_model"] != "Test CPU" || !slices.Equal(b.Tags, []string{"virtual"}) {
					t.Fatalf("inventory: %+v %v %v", n, b.Metadata, b.Tags)
				}
				if n.HardwareUUID == nil || n.OwnerID != nil || len(b.Disks) != 1 || b.Interfaces[0].Name != "ens3" || b.Interfaces[0].InterfaceSpeed != 10000 {
					t.Fatalf("inventory: %+v, %d disks, %+v", n, len(b.Disks), b.Interfaces[0])
				}
				parts := b.Disks[0].Partitions
				if firmware == "uefi" && (len(parts) != 2 || parts[0].Filesystem.Fstype != "fat32") || firmware == "bios" && (len(parts) != 1 || parts[0].Number != 2) {
					t.Fatalf("layout: %+v", parts)
				}
				auto := 0
				for _, l := range b.Interfaces[0].Links {
					if l.AllocType == storage.AllocAuto && l.SubnetID != nil && *l.SubnetID == x.sn.ID {
						auto++
					}
				}
				if auto != 1 {
					t.Fatalf("links: %+v", b.Interfaces[0].Links)
				}

				a, err := x.s.Allocate(x.as(x.user), AllocateRequest{AgentName: "test", Constraints: []Pair{{"mem", []string{"2048"}}, {"tags", []string{"virtual"}}}})
				if err != nil || a.Machine.Node.SystemID != id || *a.Machine.Node.OwnerID != x.user.ID || a.Machine.Node.AgentName != "test" {
					t.Fatalf("%+v %v", a, err)
				}
				script := "#cloud-config\nhostname: x\n"
				x.must(x.s.Deploy(x.as(x.user), id, DeployRequest{DistroSeries: "custom/debian", UserData: base64.StdEncoding.EncodeToString([]byte(script))}))
				b = x.status(id, storage.StatusDeploying)
				if b.Node.Osystem != "custom" || b.Node.DistroSeries != "debian" || !b.Node.Netboot {
					t.Fatalf("%+v", b.Node)
				}
				if act := x.job(id, api.PowerResult{State: "on"}); act != PowerOn {
					t.Fatalf("deploy ordered %q", act)
				}
				ctx := context.Background()
				_, token, err := x.s.MachineCredentials(ctx, id)
				if err != nil {
					t.Fatal(err)
				}
				task, err := x.s.Task(ctx, b.Node.ID, "http://rack/MAAS/metadata/")
				if err != nil || task.Step != api.TaskInstall || task.Then != "reboot" || task.Install.Firmware != firmware || task.Install.Memory {
					t.Fatalf("%+v %v", task, err)
				}
				want := map[string]string{"bios": "vda vda-part1 vda-part2(ext4 /)", "uefi": "vda vda-part1(vfat /boot/efi) vda-part2(ext4 /)"}[firmware]
				if got := planned(task.Install); got != want || task.Install.OSystem != "custom" || task.Install.Series != "debian" {
					t.Fatalf("planned %s, want %s", got, want)
				}
				again, err := x.s.Task(ctx, b.Node.ID, "http://rack/MAAS/metadata/")
				if first, second := mustJSON(t, task), mustJSON(t, again); err != nil || first != second {
					t.Fatalf("the task changes when it is asked for again: %v\n%s\n%s", err, first, second)
				}
				if !strings.Contains(mustJSON(t, task.Install.Network), "10.1.") {
					t.Fatalf("no address in the plan: %s", mustJSON(t, task.Install.Network))
				}
				for _, e := range []StatusEvent{{Type: "start", Origin: "curtin", Name: "cmd-install", Description: "Installing"},
					{Type: "start", Origin: "curtin", Name: "cmd-install/stage-partitioning", Description: "Partitioning"},
					{Type: "finish", Origin: "curtin", Name: "cmd-install", Description: "Installing", Result: "SUCCESS", Files: map[string][]byte{"/tmp/install.log": []byte("log")}}} {
					if err := x.s.StatusEvent(ctx, token.TokenKey, e); err != nil {
						t.Fatal(err)
					}
				}
				if kind, _, err := x.s.UserData(ctx, b.Node.ID); err != nil || kind != "run" {
					t.Fatalf("user-data while installing: %q %v", kind, err)
				}
				if err := x.s.NetbootOff(ctx, b.Node.ID); err != nil {
					t.Fatal(err)
				}
				x.signal(id, Signal{Status: "OK"})
				x.status(id, storage.StatusDeploying)
				kind, data, err := x.s.UserData(ctx, b.Node.ID)
				if err != nil || kind != "user" || string(data) != script {
					t.Fatalf("user-data: %q %q %v", kind, data, err)
				}
				b = x.status(id, storage.StatusDeployed)
				if b.Node.Netboot || b.Event.Type != "IMAGE_DEPLOYED" || !b.Node.StatusExpires.IsZero() || setCounts(b, storage.SetInstallation)[storage.ScriptPassed] != 1 {
					t.Fatalf("%+v %+v", b.Node, b.Sets)
				}
				if _, err := x.s.Machine(x.as(x.other), id); kindOf(err) != Forbidden {
					t.Fatalf("a foreign machine: %v", err)
				}
				ident, err := x.s.MachineIdentity(ctx, b.Node.ID)
				if err != nil || len(ident.SSHKeys) != 1 || !strings.HasSuffix(ident.SSHKeys[0], "user") || ident.FQDN != b.Node.Hostname+".maas" {
					t.Fatalf("%+v %v", ident, err)
				}

				yes := true
				x.must(x.s.Release(x.as(x.user), id, ReleaseRequest{Erase: &yes, Quick: &yes}))
				b = x.status(id, storage.StatusDiskErasing)
				if _, _, err := x.s.NodeByToken(ctx, token.TokenKey); !errors.Is(err, storage.ErrNotFound) {
					t.Fatalf("the installed system's credentials outlive the release: %v", err)
				}
				x.job(id, api.PowerResult{State: "on"})
				if task, err = x.s.Task(ctx, b.Node.ID, "http://rack/MAAS/metadata/"); err != nil || task.Step != api.TaskErase || task.Erase.Mode != "quick" || len(task.Erase.Disks) != 1 {
					t.Fatalf("%+v %v", task, err)
				}
				x.signal(id, Signal{Status: "OK"})
				b = x.status(id, storage.StatusReleasing)
				if b.Node.Erase != "" {
					t.Fatal("erase still owed")
				}
				if act := x.job(id, api.PowerResult{State: "off"}); act != PowerOff {
					t.Fatalf("release ordered %q", act)
				}
				b = x.status(id, storage.StatusReady)
				if b.Node.OwnerID != nil || b.Node.Osystem != "" || b.Node.AgentName != "" || len(ipsOf(b)) != 0 || b.Event.Type != "RELEASED" {
					t.Fatalf("after release: %+v %v", b.Node, ipsOf(b))
				}
			})
		})
	}
}

func setCounts(b *storage.Bundle, typ int64) map[int64]int {
	if s := b.Sets[typ]; s != nil {
		return s.Counts
	}
	return nil
}

func ipsOf(b *storage.Bundle) []string {
	var out []string
	for _, i := range b.Interfaces {
		for _, l := range i.Links {
			if l.IP.IsValid() && l.AllocType != storage.AllocDiscovered {
				out = append(out, l.IP.String())
			}
		}
	}
	return out
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func kindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

// TestAllocateOnce is the proof of invariant 1: many ask at once, none gets what another got, and all machines are given out.
func TestAllocateOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newSite(t, db)
		const machines, clients = 60, 16
		x.write(func(tx *storage.Tx) error { return readyRows(tx, machines) })
		services := []*Service{x.s, New(Config{DB: db, Power: testDrivers()})} // two regions
		var (
			mu    sync.Mutex
			taken = map[string]int64{}
			wg    sync.WaitGroup
		)
		for c := range clients {
			wg.Go(func() {
				u := []storage.User{x.admin, x.user, x.other}[c%3]
				for {
					a, err := services[c%2].Allocate(x.as(u), AllocateRequest{})
					if kindOf(err) == Conflict && err.Error() == "No machine available." {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					if owner, twice := taken[a.Machine.Node.SystemID]; twice {
						t.Errorf("%s was given to %d and to %d", a.Machine.Node.SystemID, owner, u.ID)
					}
					taken[a.Machine.Node.SystemID] = u.ID
					mu.Unlock()
					if a.Machine.Node.OwnerID == nil || *a.Machine.Node.OwnerID != u.ID || a.Machine.Node.Status != storage.StatusAllocated {
						t.Errorf("the answer is not the caller's machine: %+v", a.Machine.Node)
					}
				}
			})
		}
		wg.Wait()
		if len(taken) != machines {
			t.Fatalf("%d of %d machines were given out", len(taken), machines)
		}
		for id, owner := range taken {
			if n := x.get(id).Node; n.OwnerID == nil || *n.OwnerID != owner || n.Status != storage.StatusAllocated {
				t.Errorf("%s: the store says %v", id, n.OwnerID)
			}
		}
	})
}

// readyRows inserts Ready machines without their history: different in size, so that there is an order.
func readyRows(tx *storage.Tx, count int) error {
	pool := storage.DefaultPoolID
	for i := range count {
		n := storage.Node{SystemID: "m" + string(rune('a'+i/676%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i%26)) + newSystemID()[:3], Hostname: "host-" + newSystemID() + newSystemID(),
			Status: storage.StatusReady, ZoneID: storage.DefaultZoneID, DomainID: storage.DefaultDomainID, PoolID: &pool, Architecture: "amd64/generic",
			CPUCount: int64(1 + i%8), Memory: int64(1024 * (1 + i%16)), PowerType: "ipmi", PowerState: "off", PowerChecked: tx.Now(), Netboot: true}
		if err := tx.InsertNode(&n); err != nil {
			return err
		}
	}
	return nil
}

// TestSilence: in each transitional status a machine that is never heard of again ends in the failed status, with a reason,
// by a server that was started anew.
func TestSilence(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		enter   func(x *site, id string)
		status  storage.NodeStatus
		ends    storage.NodeStatus
		reason  string
		after   time.Duration
		ordered string
	}{
		"commissioning": {func(x *site, id string) { x.must(x.s.Commission(x.as(x.admin), id, CommissionParams{})) }, storage.StatusCommissioning,
			storage.StatusFailedCommissioning, "Node operation 'Commissioning' timed out after 30 minutes.", 31 * time.Minute, PowerOff},
		"deploying": {func(x *site, id string) { x.must(x.s.Deploy(x.as(x.user), id, DeployRequest{DistroSeries: "debian"})) }, storage.StatusDeploying,
			storage.StatusFailedDeployment, "Node operation 'Deploying' timed out after 60 minutes.", 61 * time.Minute, PowerOff},
		"installed": {func(x *site, id string) {
			x.must(x.s.Deploy(x.as(x.user), id, DeployRequest{DistroSeries: "debian"}))
			x.job(id, api.PowerResult{State: "on"})
			if err := x.s.NetbootOff(ctx, x.get(id).Node.ID); err != nil {
				x.t.Fatal(err)
			}
		}, storage.StatusDeploying, storage.StatusFailedDeployment, "Node operation 'Deploying' timed out after 60 minutes.", 61 * time.Minute, PowerOff},
		"releasing": {func(x *site, id string) {
			if _, err := x.s.Allocate(x.as(x.user), AllocateRequest{}); err != nil {
				x.t.Fatal(err)
			}
			x.write(func(tx *storage.Tx) error { _, err := tx.Exec(`update nodes set power_state = 'on'`); return err })
			x.must(x.s.Release(x.as(x.user), id, ReleaseRequest{}))
		}, storage.StatusReleasing, storage.StatusFailedReleasing, "Node operation 'Releasing' timed out after 5 minutes.", 6 * time.Minute, ""},
		"erasing": {func(x *site, id string) {
			if _, err := x.s.Allocate(x.as(x.user), AllocateRequest{}); err != nil {
				x.t.Fatal(err)
			}
			yes := true
			x.must(x.s.Release(x.as(x.user), id, ReleaseRequest{Erase: &yes}))
		}, storage.StatusDiskErasing, storage.StatusFailedDiskErasing, "Node operation 'Disk erasing' timed out after 30 minutes.", 31 * time.Minute, PowerOff},
		"rescue": {func(x *site, id string) { x.must(x.s.RescueMode(x.as(x.admin), id)) }, storage.StatusEnteringRescueMode,
			storage.StatusFailedEnteringRescue, "Node operation 'Entering rescue mode' timed out after 30 minutes.", 31 * time.Minute, PowerOff},
	} {
		t.Run(name, func(t *testing.T) {
			clock := newClock()
			x := newSite(t, storagetest.New(t, clocked(clock)))
			id := x.ready("uefi")
			c.enter(x, id)
			x.status(id, c.status)
			x.restart()
			if err := x.s.RecoverOnce(ctx); err != nil {
				t.Fatal(err)
			}
			x.status(id, c.status) // too early
			clock.add(c.after)
			if err := x.s.RecoverOnce(ctx); err != nil {
				t.Fatal(err)
			}
			b := x.status(id, c.ends)
			if b.Node.ErrorDescription != c.reason || !b.Node.StatusExpires.IsZero() {
				t.Fatalf("%q, expires %v", b.Node.ErrorDescription, b.Node.StatusExpires)
			}
			if c.ordered != "" {
				if act := x.job(id, api.PowerResult{State: "off"}); act != c.ordered {
					t.Fatalf("ordered %q", act)
				}
			}
			if err := x.s.RecoverOnce(ctx); err != nil {
				t.Fatal(err)
			}
			x.status(id, c.ends)
		})
	}
}

// TestCrashes stops the server after each step of a deploy and a release; a new one on the same store brings the machine to rest, with
// the machine going on or falling silent.
func TestCrashes(t *testing.T) {
	ctx := context.Background()
	steps := []struct {
		name string
		do   func(x *site, id string)
	}{
		{"deploy", func(x *site, id string) { x.must(x.s.Deploy(x.as(x.user), id, DeployRequest{DistroSeries: "debian"})) }},
		{"power on", func(x *site, id string) { x.job(id, api.PowerResult{State: "on"}) }},
		{"preseed", func(x *site, id string) {
			if _, _, err := x.s.MachineCredentials(ctx, id); err != nil {
				x.t.Fatal(err)
			}
		}},
		{"task", func(x *site, id string) {
			if _, err := x.s.Task(ctx, x.get(id).Node.ID, "http://r/MAAS/metadata/"); err != nil {
				x.t.Fatal(err)
			}
		}},
		{"working", func(x *site, id string) { x.signal(id, Signal{Status: "WORKING"}) }},
		{"netboot off", func(x *site, id string) {
			if err := x.s.NetbootOff(ctx, x.get(id).Node.ID); err != nil {
				x.t.Fatal(err)
			}
		}},
		{"ok", func(x *site, id string) { x.signal(id, Signal{Status: "OK"}) }},
		{"first boot", func(x *site, id string) {
			if _, _, err := x.s.UserData(ctx, x.get(id).Node.ID); err != nil {
				x.t.Fatal(err)
			}
		}},
		{"release", func(x *site, id string) {
			yes := true
			x.must(x.s.Release(x.as(x.user), id, ReleaseRequest{Erase: &yes, Quick: &yes}))
		}},
		{"power cycle", func(x *site, id string) { x.job(id, api.PowerResult{State: "on"}) }},
		{"erased", func(x *site, id string) { x.signal(id, Signal{Status: "OK"}) }},
		{"power off", func(x *site, id string) { x.job(id, api.PowerResult{State: "off"}) }},
	}
	for stop := range steps {
		for _, silent := range []bool{false, true} {
			t.Run(steps[stop].name+map[bool]string{false: ", goes on", true: ", silent"}[silent], func(t *testing.T) {
				clock := newClock()
				x := newSite(t, storagetest.New(t, clocked(clock)))
				id := x.ready("bios")
				for i := range steps {
					steps[i].do(x, id)
					if i == stop {
						x.restart()
						if err := x.s.RecoverOnce(ctx); err != nil {
							t.Fatal(err)
						}
						if silent {
							break
						}
					}
				}
				if !silent {
					x.status(id, storage.StatusReady)
					return
				}
				for range 3 { // a failed status may order the power off, and what that leads to rests too
					clock.add(3 * time.Hour)
					if err := x.s.RecoverOnce(ctx); err != nil {
						t.Fatal(err)
					}
				}
				n := x.get(id).Node
				if _, moving := transitionals[n.Status]; moving {
					t.Fatalf("stuck in %v", n.Status)
				}
				if failed := n.Status.Simplified() == "Failed"; failed && n.ErrorDescription == "" {
					t.Fatalf("%v without a reason", n.Status)
				}
				if n.Status == storage.StatusReady && n.Erase != "" {
					t.Fatal("Ready with disks that are not erased")
				}
			})
		}
	}
}

// TestPowerFailure: a BMC that refuses fails the step that waits for it, and says why.
func TestPowerFailure(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	id := x.ready("bios")
	x.must(x.s.Deploy(x.as(x.user), id, DeployRequest{DistroSeries: "debian"}))
	x.job(id, api.PowerResult{State: "error", Error: "wrong password", Final: true})
	b := x.status(id, storage.StatusFailedDeployment)
	if !strings.Contains(b.Node.ErrorDescription, "wrong password") || b.Node.PowerState != "error" || b.Node.OwnerID == nil {
		t.Fatalf("%+v", b.Node)
	}
	x.must(x.s.Release(x.as(x.user), id, ReleaseRequest{}))
	x.status(id, storage.StatusReleasing)
	x.job(id, api.PowerResult{State: "error", Error: "timeout"})
	x.status(id, storage.StatusFailedReleasing)
	x.must(x.s.Release(x.as(x.user), id, ReleaseRequest{}))
	x.job(id, api.PowerResult{State: "off"})
	x.status(id, storage.StatusReady)
}

// TestEraseDebt: no way leads to a machine that somebody else can get before its disks are erased.
func TestEraseDebt(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	id := x.ready("bios")
	if _, err := x.s.Allocate(x.as(x.admin), AllocateRequest{}); err != nil {
		t.Fatal(err)
	}
	yes := true
	x.must(x.s.Release(x.as(x.admin), id, ReleaseRequest{Erase: &yes, Secure: &yes}))
	x.signal(id, Signal{Status: "FAILED", Error: "disk on fire"})
	if b := x.status(id, storage.StatusFailedDiskErasing); b.Node.ErrorDescription != "disk on fire" || b.Node.Erase != EraseSecure {
		t.Fatalf("%+v", b.Node)
	}
	// A release that does not ask for it again erases all the same.
	x.must(x.s.Release(x.as(x.admin), id, ReleaseRequest{}))
	x.status(id, storage.StatusDiskErasing)
	x.must(x.s.Abort(x.as(x.admin), id, ""))
	x.status(id, storage.StatusFailedDiskErasing)
	x.must(x.s.MarkBroken(x.as(x.admin), id, "bad disk"))
	if _, err := x.s.MarkFixed(x.as(x.admin), id, ""); kindOf(err) != Conflict {
		t.Fatalf("fixed: %v", err)
	}
	if _, err := x.s.Commission(x.as(x.admin), id, CommissionParams{}); kindOf(err) != Conflict {
		t.Fatalf("commissioned: %v", err)
	}
	x.status(id, storage.StatusBroken)
	x.must(x.s.Release(x.as(x.admin), id, ReleaseRequest{}))
	x.status(id, storage.StatusDiskErasing)
	x.signal(id, Signal{Status: "OK"})
	x.job(id, api.PowerResult{State: "off"})
	x.status(id, storage.StatusReady)
}

// TestStaleAgent: an agent of an older boot cannot report the end of what it did not do.
func TestStaleAgent(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	ctx := context.Background()
	id := x.ready("bios")
	x.must(x.s.Deploy(x.as(x.user), id, DeployRequest{DistroSeries: "debian"}))
	_, old, err := x.s.MachineCredentials(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	x.must(x.s.Release(x.as(x.user), id, ReleaseRequest{Erase: &yes}))
	if _, _, err := x.s.NodeByToken(ctx, old.TokenKey); !errors.Is(err, storage.ErrNotFound) {
		t.Fatalf("the installing agent could still say that the disks are erased: %v", err)
	}
	if err := x.s.StatusEvent(ctx, old.TokenKey, StatusEvent{Type: "finish", Origin: "cloudinit", Name: "modules-final", Result: "SUCCESS"}); err != nil {
		t.Fatal(err)
	}
	_, fresh, err := x.s.MachineCredentials(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	// cloud-init ends its boot: that does not say that the disks are erased.
	if err := x.s.StatusEvent(ctx, fresh.TokenKey, StatusEvent{Type: "finish", Origin: "cloudinit", Name: "modules-final", Result: "SUCCESS"}); err != nil {
		t.Fatal(err)
	}
	x.status(id, storage.StatusDiskErasing)
}
