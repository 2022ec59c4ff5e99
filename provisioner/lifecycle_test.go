package provisioner

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/power"
	"github.com/ingot-metal/ingot/storage"
)

// stubDriver describes a driver; the region uses no more of it.
type stubDriver struct{ typ power.Type }

func (d stubDriver) Describe() power.Type { return d.typ }
func (d stubDriver) Query(context.Context, power.Params) (power.State, error) {
	return power.Unknown, nil
}
func (d stubDriver) On(context.Context, power.Params) error    { return nil }
func (d stubDriver) Off(context.Context, power.Params) error   { return nil }
func (d stubDriver) Cycle(context.Context, power.Params) error { return nil }

func testDrivers() map[string]power.Driver {
	return map[string]power.Driver{
		"manual": stubDriver{power.Type{Name: "manual"}},
		"ipmi": stubDriver{power.Type{Name: "ipmi", Queryable: true, Fields: []power.Field{
			{Name: "power_address", Label: "IP address", Required: true, Kind: "string"},
			{Name: "power_user", Label: "Power user", Kind: "string"},
			{Name: "power_pass", Label: "Power password", Kind: "password", Secret: true},
			{Name: "power_boot_type", Label: "Power boot type", Kind: "choice", Choices: [][2]string{{"auto", "Automatic"}, {"efi", "EFI"}}, Default: "auto"}}}},
	}
}

// site is a store with users, a subnet, an image and a clock.
type site struct {
	t     testing.TB
	s     *Service
	db    *storage.DB
	admin storage.User
	user  storage.User
	other storage.User
	image storage.Image
	sn    storage.Subnet
	macs  int
}

func newSite(t testing.TB, db *storage.DB) *site {
	t.Helper()
	x := &site{t: t, db: db}
	x.restart()
	x.write(func(tx *storage.Tx) error {
		for _, u := range []*storage.User{&x.admin, &x.user, &x.other} {
			*u = storage.User{Username: map[*storage.User]string{&x.admin: "admin", &x.user: "user", &x.other: "other"}[u], IsActive: true}
			u.IsSuperuser = u == &x.admin
			if err := tx.InsertUser(u); err != nil {
				return err
			}
			if err := tx.InsertSSHKey(&storage.SSHKey{UserID: u.ID, Key: "ssh-ed25519 AAAA " + u.Username}); err != nil {
				return err
			}
		}
		gw := "10.1.0.1"
		x.sn = storage.Subnet{VLANID: storage.DefaultVLANID, Name: "lab", CIDR: "10.1.0.0/16", FirstIP: netip.MustParseAddr("10.1.0.0"),
			LastIP: netip.MustParseAddr("10.1.255.255"), GatewayIP: &gw, DNSServers: []string{"10.1.0.2"}, RDNSMode: 2, AllowDNS: true, Managed: true}
		if err := tx.InsertSubnet(&x.sn); err != nil {
			return err
		}
		r := storage.BootResource{Rtype: 2, Name: "custom/debian", Architecture: "amd64/generic"}
		if err := tx.InsertBootResource(&r); err != nil {
			return err
		}
		set := storage.BootResourceSet{ResourceID: r.ID, Version: "20260101", Label: "uploaded"}
		if err := tx.InsertBootResourceSet(&set); err != nil {
			return err
		}
		f := storage.BootResourceFile{SetID: set.ID, Filename: "root-tgz", Filetype: "root-tgz", SHA256: strings.Repeat("ab", 32), Size: 1000, Uploaded: 1000, Complete: true}
		if err := tx.InsertBootResourceFile(&f); err != nil {
			return err
		}
		images, err := tx.RootImages()
		if err != nil || len(images) != 1 {
			return fmt.Errorf("images %v: %w", images, err)
		}
		x.image = images[0]
		return nil
	})
	return x
}

// restart is a server that comes up anew on the same store.
func (x *site) restart() {
	x.s = New(Config{DB: x.db, Power: testDrivers()})
}

func (x *site) as(u storage.User) context.Context {
	return WithActor(context.Background(), Actor{User: u, Admin: u.IsSuperuser, Endpoint: "API"})
}

func (x *site) write(fn func(tx *storage.Tx) error) {
	x.t.Helper()
	if err := x.db.Write(context.Background(), fn); err != nil {
		x.t.Fatal(err)
	}
}

func (x *site) must(b *storage.Bundle, err error) *storage.Bundle {
	x.t.Helper()
	if err != nil {
		x.t.Fatalf("%v (%#v)", err, err)
	}
	return b
}

func (x *site) get(systemID string) *storage.Bundle {
	x.t.Helper()
	return x.must(x.s.Node(x.as(x.admin), systemID))
}

func (x *site) status(systemID string, want storage.NodeStatus) *storage.Bundle {
	x.t.Helper()
	b := x.get(systemID)
	if b.Node.Status != want {
		x.t.Fatalf("%s is %v, want %v (error %q)", systemID, b.Node.Status, want, b.Node.ErrorDescription)
	}
	return b
}

func (x *site) signal(systemID string, sig Signal) {
	x.t.Helper()
	if err := x.s.Signal(context.Background(), x.get(systemID).Node.ID, sig); err != nil {
		x.t.Fatal(err)
	}
}

// job ends the unfinished power job of a machine as a rack would, and returns its action; "" when there is none.
func (x *site) job(systemID string, r api.PowerResult) string {
	x.t.Helper()
	action := ""
	x.write(func(tx *storage.Tx) error {
		n, err := tx.Node(systemID)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(`update jobs set state = 'running', attempt = attempt + 1 where state = 'ready' and node_id = $1`, n.ID); err != nil {
			return err
		}
		var id int64
		if err := tx.QueryRow(`select coalesce(max(id), 0) from jobs where state = 'running' and node_id = $1`, n.ID).Scan(&id); err != nil || id == 0 {
			return err
		}
		j, err := tx.Job(id)
		if err != nil {
			return err
		}
		var args PowerArgs
		if err := json.Unmarshal(j.Args, &args); err != nil {
			return err
		}
		action = args.Action
		state := storage.JobDone
		if r.Error != "" {
			state = storage.JobFailed
		}
		if j, err = tx.FinishJob(id, j.Attempt, state, nil, r.Error); err != nil {
			return err
		}
		return x.s.PowerResult(tx, j, r)
	})
	return action
}

// inventory of a virtual machine with a disk and a network card.
func testInventory(mac, ip, firmware string, cpus int, memoryMiB int64) []byte {
	cores := []any{}
	for i := range cpus {
		cores = append(cores, map[string]any{"core": i, "threads": []any{map[string]any{"id": i, "numa_node": 0}}})
	}
	doc := map[string]any{
		"api_version": "1.0", "api_extensions": wantedExtensions,
		"environment": map[string]any{"kernel_architecture": "x86_64", "firmware": firmware},
		"resources": map[string]any{
			"cpu":    map[string]any{"total": cpus, "sockets": []any{map[string]any{"name": "Test CPU @ 2.40GHz", "cores": cores}}},
			"memory": map[string]any{"total": memoryMiB << 20, "nodes": []any{map[string]any{"numa_node": 0, "total": memoryMiB << 20}}},
			"network": map[string]any{"cards": []any{map[string]any{"vendor": "Red Hat, Inc.", "ports": []any{map[string]any{"id": "ens3", "address": mac,
				"supported_modes": []string{"1000baseT/Full", "10000baseT/Full"}, "link_detected": true, "link_speed": 1000}}}}},
			"storage": map[string]any{"disks": []any{map[string]any{"id": "vda", "model": "QEMU", "type": "virtio", "size": 8 << 30, "block_size": 512,
				"serial": "disk-" + mac, "device_id": "virtio-disk"}, map[string]any{"id": "sr0", "type": "cdrom", "size": 1 << 30}}},
			"system": map[string]any{"uuid": "7c4e1a3c-2d5f-4e61-9d0b-" + strings.ReplaceAll(mac, ":", ""), "vendor": "QEMU", "type": "virtual-machine"},
		},
		"networks": map[string]any{"ens3": map[string]any{"type": "broadcast", "hwaddr": mac, "state": "up", "addresses": []any{
			map[string]any{"family": "inet", "address": ip, "netmask": "16", "scope": "global"}}}, "lo": map[string]any{"type": "loopback", "state": "up"}},
	}
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return b
}

func (x *site) mac() string {
	x.macs++
	return fmt.Sprintf("52:54:00:00:%02x:%02x", x.macs>>8, x.macs&0xff)
}

// enlisted is a machine that was switched on, unknown, and has enlisted itself: New.
func (x *site) enlisted(firmware string) string {
	x.t.Helper()
	mac := x.mac()
	arch, typ, yes := "amd64", "ipmi", true
	b := x.must(x.s.CreateMachine(context.Background(), MachineSpec{Architecture: &arch, MACs: []string{strings.ToUpper(mac)}, Commission: &yes, PowerType: &typ,
		PowerParameters: map[string]string{"power_address": fmt.Sprintf("10.2.0.%d:%d", x.macs%250, 623+x.macs), "power_user": "maas", "power_pass": "secret"}}))
	id := b.Node.SystemID
	if b.Node.Status != storage.StatusCommissioning || !b.Node.Enlisting {
		x.t.Fatalf("enlisting machine is %v", b.Node.Status)
	}
	x.report(id, firmware)
	x.status(id, storage.StatusNew)
	return id
}

// report does what the agent does when it commissions.
func (x *site) report(id, firmware string) {
	x.t.Helper()
	zero := int64(0)
	b := x.get(id)
	mac := b.Interfaces[0].MACAddress
	inv := testInventory(mac, fmt.Sprintf("10.1.9.%d", b.Node.ID%250+1), firmware, 2, 4096)
	x.signal(id, Signal{Status: "WORKING"})
	x.signal(id, Signal{Status: "WORKING", Name: InventoryScript, ExitStatus: &zero, Files: map[string][]byte{InventoryScript: inv, InventoryScript + ".out": inv}})
	x.signal(id, Signal{Status: "OK"})
}

// ready is a machine that an administrator has accepted and that was commissioned.
func (x *site) ready(firmware string) string {
	x.t.Helper()
	id := x.enlisted(firmware)
	x.must(x.s.Commission(x.as(x.admin), id, CommissionParams{}))
	x.status(id, storage.StatusCommissioning)
	if a := x.job(id, api.PowerResult{State: "on"}); a != PowerCycle {
		x.t.Fatalf("commissioning ordered %q", a)
	}
	x.report(id, firmware)
	x.status(id, storage.StatusReady)
	x.job(id, api.PowerResult{State: "off"})
	return id
}
