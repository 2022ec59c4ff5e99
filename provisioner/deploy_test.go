package provisioner

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// addImage stores an image that is not there: its content is of no interest here.
func (x *site) addImage(name, filetype, base string) {
	x.t.Helper()
	x.write(func(tx *storage.Tx) error {
		r := storage.BootResource{Rtype: storage.ResourceUploaded, Name: name, Architecture: "amd64/generic", Extra: []byte(`{"base_image":"` + base + `"}`)}
		if err := tx.InsertBootResource(&r); err != nil {
			return err
		}
		set := storage.BootResourceSet{ResourceID: r.ID, Version: "20260101", Label: "uploaded"}
		if err := tx.InsertBootResourceSet(&set); err != nil {
			return err
		}
		return tx.InsertBootResourceFile(&storage.BootResourceFile{SetID: set.ID, Filename: filetype, Filetype: filetype, SHA256: strings.Repeat("cd", 32), Size: 2000,
			Uploaded: 2000, Complete: true})
	})
}

// task is what the agent on a machine gets.
func (x *site) task(id string) api.Task {
	x.t.Helper()
	if _, _, err := x.s.MachineCredentials(context.Background(), id); err != nil {
		x.t.Fatal(err)
	}
	task, err := x.s.Task(context.Background(), x.get(id).Node.ID, "http://rack/MAAS/metadata/")
	if err != nil {
		x.t.Fatal(err)
	}
	return task
}

// purpose is what a rack tells a machine to boot.
func (x *site) purpose(id string) api.Purpose {
	x.t.Helper()
	var p api.Purpose
	x.write(func(tx *storage.Tx) error {
		nodes, err := tx.SnapshotNodes(0)
		for _, n := range nodes {
			if n.SystemID == id {
				p = purposeOf(n)
			}
		}
		return err
	})
	return p
}

// boots are the verdicts of a machine's boots, the oldest first; - for one that runs.
func (x *site) boots(id string) (out []string) {
	x.t.Helper()
	boots, err := x.s.Boots(x.as(x.admin), id, 100)
	if err != nil {
		x.t.Fatal(err)
	}
	for _, b := range boots {
		v := b.Verdict
		if v == "" {
			v = "-"
		}
		out = append([]string{v}, out...)
	}
	return out
}

// TestDeployToMemory: nothing is written to disks, and each boot starts the system in memory anew, until the machine is released.
func TestDeployToMemory(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newSite(t, db)
		ctx := context.Background()
		x.addImage("custom/disk", "root-dd.gz", "")
		id := x.ready("uefi")
		user := x.as(x.user)
		if _, err := x.s.Deploy(user, id, DeployRequest{DistroSeries: "custom/disk", Ephemeral: true}); kindOf(err) != Invalid || err.(*Error).Fields["ephemeral_deploy"] == nil {
			t.Fatalf("an image of a disk to memory: %v", err)
		}
		x.status(id, storage.StatusReady)
		b := x.must(x.s.Deploy(user, id, DeployRequest{DistroSeries: "custom/debian", Ephemeral: true, UserData: "#!/bin/sh\n"}))
		if !b.Node.EphemeralDeploy || b.Node.Environment != "light" {
			t.Fatalf("%+v", b.Node)
		}
		x.job(id, api.PowerResult{State: "on"})
		installs := func(when string) {
			t.Helper()
			if p := x.purpose(id); p != api.PurposeInstall {
				t.Errorf("%s: a boot is for %s", when, p)
			}
			task := x.task(id)
			if task.Step != api.TaskInstall || task.Install == nil || !task.Install.Memory || len(task.Install.Storage) != 0 || task.Install.SwapSize != nil || len(task.Install.Seed) == 0 {
				t.Fatalf("%s: %+v", when, task)
			}
		}
		installs("deploying")
		x.signal(id, Signal{Status: "WORKING"})
		x.signal(id, Signal{Status: "OK"})
		installs("unpacked")
		if kind, data, err := x.s.UserData(ctx, x.get(id).Node.ID); err != nil || kind != "user" || string(data) != "#!/bin/sh\n" {
			t.Fatalf("user-data: %s %q %v", kind, data, err)
		}
		b = x.status(id, storage.StatusDeployed)
		if !b.Node.Netboot || !b.Node.EphemeralDeploy {
			t.Fatalf("%+v", b.Node)
		}
		if v := x.boots(id); v[len(v)-1] != "ok: deployed to memory" {
			t.Errorf("boots %q", v)
		}
		// A rescue in between, in another environment, changes nothing of that.
		if err := x.s.SetConfig(x.as(x.admin), "ingot_boot_environment", "full"); err != nil {
			t.Fatal(err)
		}
		x.must(x.s.RescueMode(x.as(x.admin), id))
		x.job(id, api.PowerResult{State: "on"})
		x.signal(id, Signal{Status: "OK"})
		if p := x.purpose(id); p != api.PurposeCommission {
			t.Errorf("rescue mode boots %s", p)
		}
		x.must(x.s.ExitRescueMode(x.as(x.admin), id))
		x.job(id, api.PowerResult{State: "on"})
		x.status(id, storage.StatusDeployed)
		installs("after a rescue")
		if err := x.s.SetConfig(x.as(x.admin), "ingot_boot_environment", "light"); err != nil {
			t.Fatal(err)
		}
		x.write(func(tx *storage.Tx) error { // the rescue made it the administrator's
			n, err := tx.LockNodeBySystemID(id)
			if err != nil {
				return err
			}
			n.OwnerID = &x.user.ID
			return tx.UpdateNode(&n)
		})
		// Somebody pulls the plug.
		x.must(x.s.PowerOn(user, id, "", ""))
		x.job(id, api.PowerResult{State: "on"})
		installs("again")
		if ident, err := x.s.MachineIdentity(ctx, b.Node.ID); err != nil || ident.Ephemeral {
			t.Errorf("%+v %v", ident, err)
		}
		if _, _, err := x.s.UserData(ctx, b.Node.ID); err != nil {
			t.Fatal(err)
		}
		x.status(id, storage.StatusDeployed)
		if v := x.boots(id); v[len(v)-1] != "ok: started in memory" {
			t.Errorf("boots %q", v)
		}
		x.must(x.s.Release(user, id, ReleaseRequest{}))
		x.job(id, api.PowerResult{State: "off"})
		if b = x.status(id, storage.StatusReady); b.Node.EphemeralDeploy {
			t.Error("the next deployment would be to memory too")
		}
		// A machine without disks has no choice.
		x.write(func(tx *storage.Tx) error {
			_, err := tx.Exec("delete from block_devices where node_id = $1", b.Node.ID)
			return err
		})
		if _, err := x.s.Deploy(user, id, DeployRequest{DistroSeries: "custom/disk"}); kindOf(err) != Invalid || !strings.Contains(err.(*Error).Fields["storage"][0], "no storage devices") {
			t.Fatalf("an image of a disk on a machine without: %v", err)
		}
		if b := x.must(x.s.Deploy(user, id, DeployRequest{DistroSeries: "custom/debian"})); !b.Node.EphemeralDeploy {
			t.Error("a machine without disks is not deployed to memory")
		}
		x.must(x.s.Abort(user, id, ""))
		if x.get(id).Node.EphemeralDeploy {
			t.Error("an aborted deployment to memory is still one")
		}
	})
}

// TestDeployImages: what the plan says of images, swap space and the proxy.
func TestDeployImages(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	user := x.as(x.user)
	for _, i := range [][3]string{{"windows/win2022", "root-dd.gz", ""}, {"custom/appliance", "root-dd.raw", "ubuntu/jammy"}, {"ubuntu/noble", "squashfs", ""}, {"esxi/8.0", "root-dd", ""}} {
		x.addImage(i[0], i[1], i[2])
	}
	id := x.ready("uefi")
	size, none := int64(2_000_000_000), int64(0)
	for _, c := range []struct {
		image, proxy string
		swap         *int64
		want         string
		wantSwap     *int64
		base         string
	}{
		{"windows/win2022", "", &size, "vda", nil, ""},
		{"esxi/8.0", "", nil, "vda", nil, ""},
		{"custom/appliance", "", &size, "vda", nil, "ubuntu/jammy"},
		{"custom/debian", "", &size, "vda vda-part1(vfat /boot/efi) vda-part2(ext4 /)", nil, ""},
		{"ubuntu/noble", "http://proxy.example:3128/", &size, "vda vda-part1(vfat /boot/efi) vda-part2(ext4 /)", &size, ""},
		{"ubuntu/noble", "", &none, "vda vda-part1(vfat /boot/efi) vda-part2(ext4 /)", &none, ""},
		{"ubuntu/noble", "", nil, "vda vda-part1(vfat /boot/efi) vda-part2(ext4 /)", nil, ""},
	} {
		x.write(func(tx *storage.Tx) error {
			n, err := tx.LockNodeBySystemID(id)
			if err != nil {
				return err
			}
			n.SwapSize = c.swap
			return tx.UpdateNode(&n)
		})
		if err := x.s.SetConfig(x.as(x.admin), "http_proxy", c.proxy); err != nil {
			t.Fatal(err)
		}
		x.must(x.s.Deploy(user, id, DeployRequest{DistroSeries: c.image}))
		p := x.task(id).Install
		swap := func(n *int64) int64 {
			if n == nil {
				return -1
			}
			return *n
		}
		if got := planned(p); got != c.want || p.OSystem+"/"+p.Series != c.image || p.BaseImage != c.base || p.Proxy != c.proxy || swap(p.SwapSize) != swap(c.wantSwap) {
			t.Errorf("%s: %s; %+v", c.image, got, p)
		}
		x.must(x.s.Abort(user, id, ""))
		x.must(x.s.Release(user, id, ReleaseRequest{}))
		x.job(id, api.PowerResult{State: "off"})
	}
	if _, err := x.s.Deploy(user, id, DeployRequest{DistroSeries: "windows/win2022", EnableHWSync: true}); kindOf(err) != Invalid || err.(*Error).Fields["enable_hw_sync"] == nil {
		t.Errorf("hardware sync of Windows: %v", err)
	}
	// ESXi registers itself where an administrator deploys it and does not say otherwise.
	no := false
	for _, c := range []struct {
		ctx  context.Context
		ask  *bool
		want string
	}{{x.as(x.user), nil, ""}, {x.as(x.admin), nil, "True"}, {x.as(x.admin), &no, ""}} {
		x.must(x.s.Deploy(c.ctx, id, DeployRequest{DistroSeries: "esxi/8.0", VCenter: c.ask}))
		if got := x.get(id).Metadata[metaVCenter]; got != c.want {
			t.Errorf("vcenter registration %q, want %q", got, c.want)
		}
		x.must(x.s.Abort(c.ctx, id, ""))
		x.must(x.s.Release(c.ctx, id, ReleaseRequest{}))
		x.job(id, api.PowerResult{State: "off"})
	}
}

// rack posts steps of a machine's boot.
func (x *site) rack(id string, at time.Time, kinds ...string) {
	x.t.Helper()
	var steps []api.BootStep
	for i, kind := range kinds {
		kind, purpose, _ := strings.Cut(kind, ":")
		steps = append(steps, api.BootStep{At: at.Add(time.Duration(i) * time.Second), Kind: kind, MAC: x.get(id).Interfaces[0].MACAddress, Purpose: purpose})
	}
	if err := x.s.RecordBoots(context.Background(), "", steps); err != nil {
		x.t.Fatal(err)
	}
}

// TestWatchdog: a machine that was switched on and of which no rack saw anything is power-cycled once.
func TestWatchdog(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name string
		do   func(x *site, c *testClock, id string) // after power on
		want string                                 // ordered after ten minutes
	}{
		{"silent", func(x *site, c *testClock, id string) {}, PowerCycle},
		{"steps of the boot before come late", func(x *site, c *testClock, id string) { x.rack(id, c.now().Add(-time.Hour), "dhcp-offer", "kernel") }, PowerCycle},
		{"gets an address, and is lost then", func(x *site, c *testClock, id string) { c.add(5 * time.Minute); x.rack(id, c.now(), "dhcp-offer") }, PowerCycle},
		{"asks what to boot", func(x *site, c *testClock, id string) {
			c.add(time.Minute)
			x.rack(id, c.now(), "dhcp-offer", "boot-config:xinstall")
		}, ""},
		{"works", func(x *site, c *testClock, id string) { c.add(time.Minute); x.signal(id, Signal{Status: "WORKING"}) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := newClock()
			storagetest.Each(t, func(t *testing.T, db *storage.DB) {
				x := newSite(t, db)
				id := x.ready("bios")
				clock.add(time.Hour)
				x.must(x.s.Deploy(x.as(x.user), id, DeployRequest{DistroSeries: "debian"}))
				look := func() {
					t.Helper()
					if err := x.s.RecoverOnce(ctx); err != nil {
						t.Fatal(err)
					}
				}
				clock.add(15 * time.Minute)
				look() // the order is still under way
				if a := x.job(id, api.PowerResult{State: "on"}); a != PowerOn {
					t.Fatalf("ordered %q", a)
				}
				c.do(x, clock, id)
				clock.add(9 * time.Minute)
				look()
				if a := x.job(id, api.PowerResult{State: "on"}); a == PowerCycle {
					t.Fatal("too early")
				}
				clock.add(2 * time.Minute)
				look()
				if a := x.job(id, api.PowerResult{State: "on"}); (a == PowerCycle) != (c.want == PowerCycle) {
					t.Fatalf("ordered %q, want %q", a, c.want)
				}
				x.status(id, storage.StatusDeploying)
				events := x.events(id, "NODE_POWER_CYCLE_STARTING")
				if c.want == "" {
					if len(events) > 0 {
						t.Errorf("events %q", events)
					}
					return
				}
				v := x.boots(id)
				if len(events) != 1 || len(v) < 2 || !strings.HasPrefix(v[len(v)-2], "failed: No sign of the machine for 10m0s: its network boot") || v[len(v)-1] != "-" {
					t.Errorf("events %q, boots %q", events, v)
				}
				for range 3 { // once is enough; then the status has its deadline
					clock.add(11 * time.Minute)
					look()
					if a := x.job(id, api.PowerResult{State: "on"}); a == PowerCycle {
						t.Fatal("cycled again")
					}
				}
				clock.add(time.Hour)
				look()
				x.status(id, storage.StatusFailedDeployment)
				if v := x.boots(id); slices.Contains(v, "-") || !strings.HasPrefix(v[len(v)-1], "failed: Node operation 'Deploying' timed out") {
					t.Errorf("boots %q", v)
				}
			}, clocked(clock))
		})
	}
}

// TestBootVerdicts: each boot of a machine's life ends with what it came to.
func TestBootVerdicts(t *testing.T) {
	clock := newClock()
	x := newSite(t, storagetest.New(t, clocked(clock)))
	ctx := context.Background()
	user := x.as(x.user)
	id := x.ready("bios")
	var all []string
	look := func(what string, more ...string) {
		t.Helper()
		all = append(all, more...)
		if got := x.boots(id); !slices.Equal(got, all) {
			t.Fatalf("%s:\n%q\nwant\n%q", what, got, all)
		}
		clock.add(time.Minute)
	}
	look("commissioned", "ok: commissioned")
	x.must(x.s.Deploy(user, id, DeployRequest{DistroSeries: "debian"}))
	x.job(id, api.PowerResult{State: "on"})
	x.rack(id, clock.now(), "dhcp-offer", "boot-config:xinstall", "kernel")
	clock.add(time.Minute)
	x.signal(id, Signal{Status: "WORKING"})
	x.signal(id, Signal{Status: "OK"})
	look("installed", "ok: installed, the disk is next")
	// What the rack saw before the end comes after it, and belongs to the boot that it is of.
	x.rack(id, clock.now().Add(-90*time.Second), "image")
	look("a late step")
	x.rack(id, clock.now(), "dhcp-offer", "boot-config:local")
	look("started from its disk", "-")
	if _, _, err := x.s.UserData(ctx, x.get(id).Node.ID); err != nil {
		t.Fatal(err)
	}
	all[len(all)-1] = "ok: deployed"
	look("deployed")
	x.rack(id, clock.now(), "dhcp-offer", "boot-config:local")
	look("booted by its user", "ok: started from its disk")
	x.must(x.s.PowerOn(user, id, "", ""))
	x.job(id, api.PowerResult{State: "on"})
	look("switched on", "-")
	x.must(x.s.RescueMode(x.as(x.admin), id))
	all[len(all)-1] = "failed: ended by the order to power cycle"
	look("entering rescue mode", "-")
	x.signal(id, Signal{Status: "FAILED", Error: "no memory"})
	all[len(all)-1] = "failed: no memory"
	look("failed rescue")
	yes := true
	x.must(x.s.ExitRescueMode(x.as(x.admin), id))
	x.job(id, api.PowerResult{State: "on"})
	x.status(id, storage.StatusDeployed)
	x.must(x.s.Release(x.as(x.admin), id, ReleaseRequest{Erase: &yes, Quick: &yes}))
	all = append(all, "failed: ended by the order to power cycle", "-")
	look("erasing")
	x.must(x.s.Abort(x.as(x.admin), id, ""))
	all[len(all)-1] = "failed: "
	if v := x.boots(id); !strings.HasPrefix(v[len(v)-1], "failed: ") {
		t.Errorf("%q", v)
	}
}

// TestRescue: from each status that it may be entered from, and each way out.
func TestRescue(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newSite(t, db)
		ctx := context.Background()
		admin := x.as(x.admin)
		id := x.ready("bios")
		enter := func() {
			t.Helper()
			x.must(x.s.RescueMode(admin, id))
			b := x.status(id, storage.StatusEnteringRescueMode)
			if *b.Node.OwnerID != x.admin.ID || x.purpose(id) != api.PurposeCommission {
				t.Fatalf("%+v", b.Node)
			}
			x.job(id, api.PowerResult{State: "on"})
			if task := x.task(id); task.Step != api.TaskRescue || task.Then != "stay" {
				t.Fatalf("%+v", task)
			}
			// Whoever entered it can log in.
			ident, err := x.s.MachineIdentity(ctx, b.Node.ID)
			if err != nil || ident.HideKeys || len(ident.SSHKeys) != 1 || !strings.HasSuffix(ident.SSHKeys[0], "admin") {
				t.Fatalf("%+v %v", ident, err)
			}
		}
		exit := func(order string, state string, to storage.NodeStatus) {
			t.Helper()
			x.must(x.s.ExitRescueMode(admin, id))
			x.status(id, storage.StatusExitingRescueMode)
			if a := x.job(id, api.PowerResult{State: state}); a != order {
				t.Fatalf("leaving ordered %q, want %q", a, order)
			}
			x.status(id, to)
		}
		if _, err := x.s.RescueMode(x.as(x.user), id); kindOf(err) != Forbidden {
			t.Fatalf("by a user: %v", err)
		}
		if _, err := x.s.ExitRescueMode(admin, id); kindOf(err) != Conflict {
			t.Fatalf("leaving without: %v", err)
		}
		enter()
		x.signal(id, Signal{Status: "WORKING"})
		x.status(id, storage.StatusRescueMode)
		x.signal(id, Signal{Status: "OK"})
		if _, err := x.s.RescueMode(admin, id); kindOf(err) != Conflict {
			t.Fatalf("entering twice: %v", err)
		}
		exit(PowerOff, "off", storage.StatusReady)
		if x.get(id).Node.OwnerID != nil {
			t.Error("a Ready machine with an owner")
		}
		// It fails, is tried again, and left.
		enter()
		x.signal(id, Signal{Status: "FAILED", Error: "no shell"})
		if b := x.status(id, storage.StatusFailedEnteringRescue); b.Node.ErrorDescription != "no shell" || b.Event.Type != "FAILED_ENTERING_RESCUE_MODE" {
			t.Errorf("%q %+v", b.Node.ErrorDescription, b.Event)
		}
		x.must(x.s.RescueMode(admin, id))
		if b := x.status(id, storage.StatusEnteringRescueMode); b.Node.ErrorDescription != "" {
			t.Errorf("still %q", b.Node.ErrorDescription)
		}
		x.job(id, api.PowerResult{State: "error", Error: "BMC on fire", Final: true})
		x.status(id, storage.StatusFailedEnteringRescue)
		x.must(x.s.ExitRescueMode(admin, id))
		x.job(id, api.PowerResult{State: "error", Error: "still on fire", Final: true})
		x.status(id, storage.StatusFailedExitingRescue)
		exit(PowerOff, "off", storage.StatusReady)
		// A deployed system is started again, with the credentials that it has.
		x.must(x.s.Deploy(admin, id, DeployRequest{DistroSeries: "debian"}))
		x.job(id, api.PowerResult{State: "on"})
		if err := x.s.NetbootOff(ctx, x.get(id).Node.ID); err != nil {
			t.Fatal(err)
		}
		if _, _, err := x.s.UserData(ctx, x.get(id).Node.ID); err != nil {
			t.Fatal(err)
		}
		x.status(id, storage.StatusDeployed)
		_, before, err := x.s.MachineCredentials(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		enter()
		x.signal(id, Signal{Status: "OK"})
		exit(PowerCycle, "on", storage.StatusDeployed)
		if _, after, err := x.s.MachineCredentials(ctx, id); err != nil || after != before {
			t.Errorf("the deployed system lost its credentials: %v", err)
		}
		if b := x.get(id); b.Node.OwnerID == nil || *b.Node.OwnerID != x.admin.ID {
			t.Error("the deployed machine lost its owner")
		}
	})
}

// TestEraseModes: the parameters and the settings decide how; each disk's end is told.
func TestEraseModes(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	admin := x.as(x.admin)
	id := x.ready("bios")
	yes, no := true, false
	for _, c := range []struct {
		req      ReleaseRequest
		settings [3]bool // always, secure, quick
		want     *api.ErasePlan
	}{
		{ReleaseRequest{}, [3]bool{false, true, false}, nil},
		{ReleaseRequest{Erase: &yes}, [3]bool{false, true, false}, &api.ErasePlan{Mode: "full"}},
		{ReleaseRequest{Quick: &yes}, [3]bool{false, true, false}, &api.ErasePlan{Mode: "quick"}},
		{ReleaseRequest{Secure: &yes}, [3]bool{false, true, false}, &api.ErasePlan{Mode: "secure"}},
		{ReleaseRequest{Secure: &yes, Quick: &yes}, [3]bool{false, false, false}, &api.ErasePlan{Mode: "secure-or-quick"}},
		{ReleaseRequest{Erase: &no, Quick: &yes}, [3]bool{true, true, false}, &api.ErasePlan{Mode: "secure"}},
		{ReleaseRequest{Secure: &yes}, [3]bool{true, false, true}, &api.ErasePlan{Mode: "quick"}},
		{ReleaseRequest{}, [3]bool{true, false, false}, &api.ErasePlan{Mode: "full"}},
		{ReleaseRequest{}, [3]bool{true, true, true}, &api.ErasePlan{Mode: "secure-or-quick"}},
		{ReleaseRequest{Scripts: "wipe-disks"}, [3]bool{false, true, false}, &api.ErasePlan{Mode: "full"}},
	} {
		for i, name := range []string{"enable_disk_erasing_on_release", "disk_erase_with_secure_erase", "disk_erase_with_quick_erase"} {
			value := "false"
			if c.settings[i] {
				value = "true"
			}
			if err := x.s.SetConfig(admin, name, value); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := x.s.Allocate(admin, AllocateRequest{}); err != nil {
			t.Fatal(err)
		}
		x.must(x.s.Release(admin, id, c.req))
		if c.want == nil {
			x.job(id, api.PowerResult{State: "off"})
			x.status(id, storage.StatusReady)
			continue
		}
		x.status(id, storage.StatusDiskErasing)
		x.job(id, api.PowerResult{State: "on"})
		task := x.task(id)
		if task.Step != api.TaskErase || task.Erase.Mode != c.want.Mode || len(task.Erase.Disks) != 1 {
			t.Errorf("%+v %v: %+v", c.req, c.settings, task.Erase)
		}
		_, token, err := x.s.MachineCredentials(admin, id)
		if err != nil {
			t.Fatal(err)
		}
		if err := x.s.StatusEvent(admin, token.TokenKey, StatusEvent{Type: "finish", Origin: "ingot", Name: "erase/vda", Result: "SUCCESS",
			Description: "Disk vda: overwritten with zeros instead of secure erase"}); err != nil {
			t.Fatal(err)
		}
		x.status(id, storage.StatusDiskErasing)
		x.signal(id, Signal{Status: "OK"})
		x.job(id, api.PowerResult{State: "off"})
		x.status(id, storage.StatusReady)
	}
	if got := x.events(id, "NODE_DISK_ERASED"); len(got) != 9 || got[0] != "Disk vda: overwritten with zeros instead of secure erase" {
		t.Errorf("%q", got)
	}
	if got := x.events(id, "NODE_DISKS_ERASED"); len(got) != 9 {
		t.Errorf("%d machines erased", len(got))
	}
}

// TestHardwareSync: a system that was deployed with it reports its inventory, which is taken without a change of status or storage.
func TestHardwareSync(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newSite(t, db)
		ctx := context.Background()
		user := x.as(x.user)
		if err := x.s.SetConfig(x.as(x.admin), "hardware_sync_interval", "1h30m"); err != nil {
			t.Fatal(err)
		}
		id := x.ready("bios")
		deploy := func(sync bool) Identity {
			t.Helper()
			x.must(x.s.Deploy(user, id, DeployRequest{DistroSeries: "debian", EnableHWSync: sync}))
			x.job(id, api.PowerResult{State: "on"})
			if ident, err := x.s.MachineIdentity(ctx, x.get(id).Node.ID); err != nil || ident.Sync != 0 {
				t.Fatalf("the environment is to report: %+v %v", ident, err)
			}
			if err := x.s.NetbootOff(ctx, x.get(id).Node.ID); err != nil {
				t.Fatal(err)
			}
			ident, err := x.s.MachineIdentity(ctx, x.get(id).Node.ID)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := x.s.UserData(ctx, x.get(id).Node.ID); err != nil {
				t.Fatal(err)
			}
			return ident
		}
		if ident := deploy(true); ident.Sync != 90*time.Minute {
			t.Errorf("%+v", ident)
		}
		if interval, last := Sync(x.get(id)); interval != 5400 || !last.IsZero() {
			t.Errorf("every %d, last %v", interval, last)
		}
		before := brief(x.get(id))
		zero := int64(0)
		inv := testInventory(x.get(id).Interfaces[0].MACAddress, "10.1.9.9", "bios", 6, 8192)
		x.signal(id, Signal{Status: "WORKING", Name: InventoryScript, ExitStatus: &zero, Files: map[string][]byte{InventoryScript: inv, InventoryScript + ".out": inv}})
		b := x.status(id, storage.StatusDeployed)
		if b.Node.CPUCount != 6 || b.Node.Memory != 8192 || brief(b) != before {
			t.Errorf("%d processors, %d MiB, %s", b.Node.CPUCount, b.Node.Memory, brief(b))
		}
		if _, last := Sync(b); last.IsZero() {
			t.Error("nobody knows when it came")
		}
		x.must(x.s.Release(user, id, ReleaseRequest{}))
		x.job(id, api.PowerResult{State: "off"})
		if ident := deploy(false); ident.Sync != 0 {
			t.Errorf("%+v", ident)
		}
		if interval, _ := Sync(x.get(id)); interval != 0 {
			t.Errorf("every %d", interval)
		}
	})
}
