package provisioner

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// change edits an inventory.
func change(t *testing.T, inv []byte, edit func(doc map[string]any)) []byte {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(inv, &doc); err != nil {
		t.Fatal(err)
	}
	edit(doc)
	return []byte(mustJSON(t, doc))
}

func resources(doc map[string]any) map[string]any { return doc["resources"].(map[string]any) }

// TestInventoryAgain: a second inventory keeps the rows of what is still there, adds what is new and drops what is gone.
func TestInventoryAgain(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	id := x.ready("bios")
	before := x.get(id)
	mac := before.Interfaces[0].MACAddress
	x.must(x.s.Commission(x.as(x.admin), id, CommissionParams{}))
	inv := change(t, testInventory(mac, "10.1.9.9", "uefi", 8, 8192), func(doc map[string]any) {
		disks := resources(doc)["storage"].(map[string]any)
		old := disks["disks"].([]any)[0].(map[string]any)
		old["id"] = "vdb" // the same disk, by its serial number, has another name now
		disks["disks"] = []any{map[string]any{"id": "vda", "size": 20 << 30, "serial": "NEW", "type": "sata", "rpm": 7200, "removable": true}, old}
		nets := doc["networks"].(map[string]any)
		nets["ens3"].(map[string]any)["hwaddr"] = "52:54:00:aa:aa:aa" // and a card that took the old name
		nets["ens9"] = map[string]any{"type": "broadcast", "hwaddr": mac, "state": "up", "addresses": []any{}}
		nets["ib0"] = map[string]any{"type": "broadcast", "hwaddr": "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:11:22:33", "state": "up"}
		nets["usb0"] = map[string]any{"type": "broadcast", "hwaddr": "02:00:00:00:00:02", "state": "up"}
		resources(doc)["network"] = map[string]any{"cards": []any{}}
		resources(doc)["system"] = map[string]any{"uuid": "x", "vendor": "None", "type": "physical"}
	})
	zero := int64(0)
	x.signal(id, Signal{Status: "WORKING", Name: InventoryScript, ExitStatus: &zero, Files: map[string][]byte{InventoryScript: inv}})
	x.signal(id, Signal{Status: "OK"})
	b := x.status(id, storage.StatusReady)
	if b.Node.CPUCount != 8 || len(b.Disks) != 2 || len(b.Interfaces) != 2 || len(b.Tags) != 0 || b.Metadata["system_vendor"] != "" {
		t.Fatalf("%+v, %d disks, %d interfaces, %v, %v", b.Node, len(b.Disks), len(b.Interfaces), b.Tags, b.Metadata)
	}
	for _, d := range b.Disks {
		switch d.Name {
		case "vdb":
			if d.ID != before.Disks[0].ID {
				t.Error("the disk lost its row")
			}
			if len(d.Partitions) != 2 {
				t.Errorf("the firmware is UEFI now: %+v", d.Partitions)
			}
		case "vda":
			if strings.Join(d.Tags, ",") != "rotary,7200rpm,removable,sata" || len(d.Partitions) != 0 {
				t.Errorf("%v %v", d.Tags, d.Partitions)
			}
		default:
			t.Errorf("disk %s", d.Name)
		}
	}
	for _, i := range b.Interfaces {
		if i.MACAddress == mac && (i.Name != "ens9" || i.ID != before.Interfaces[0].ID || b.Node.BootInterfaceID == nil || *b.Node.BootInterfaceID != i.ID) {
			t.Errorf("%+v boot %v", i, b.Node.BootInterfaceID)
		}
	}
}

// TestBadInventory: what cannot be used changes nothing but the script's result, and fails the commissioning with a reason.
func TestBadInventory(t *testing.T) {
	good := testInventory("52:54:00:00:00:01", "10.1.9.9", "bios", 2, 1024)
	for name, inv := range map[string][]byte{
		"not JSON":     []byte("Segmentation fault"),
		"empty":        nil,
		"version":      change(t, good, func(doc map[string]any) { doc["api_version"] = "2.0" }),
		"extensions":   change(t, good, func(doc map[string]any) { doc["api_extensions"] = []string{"resources"} }),
		"wrong types":  change(t, good, func(doc map[string]any) { doc["networks"] = "none" }),
		"negative CPU": change(t, good, func(doc map[string]any) { resources(doc)["cpu"] = map[string]any{"total": -1} }),
	} {
		t.Run(name, func(t *testing.T) {
			x := newSite(t, storagetest.New(t))
			id := x.ready("bios")
			x.must(x.s.Commission(x.as(x.admin), id, CommissionParams{}))
			zero := int64(0)
			x.signal(id, Signal{Status: "WORKING", Name: InventoryScript, ExitStatus: &zero, Files: map[string][]byte{InventoryScript: inv}})
			x.signal(id, Signal{Status: "OK"})
			b := x.status(id, storage.StatusFailedCommissioning)
			if b.Node.ErrorDescription == "" || b.Node.CPUCount != 2 || setCounts(b, storage.SetCommissioning)[storage.ScriptFailed] != 1 {
				t.Fatalf("%+v %v", b.Node, b.Sets)
			}
		})
	}
}

// TestForeignMAC: a machine that claims the address of one in use does not get it.
func TestForeignMAC(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	victim, thief := x.ready("bios"), x.ready("bios")
	x.must(x.s.Deploy(x.as(x.user), victim, DeployRequest{DistroSeries: "debian"}))
	mac := x.get(victim).Interfaces[0].MACAddress
	x.must(x.s.Commission(x.as(x.admin), thief, CommissionParams{}))
	zero := int64(0)
	inv := testInventory(mac, "10.1.9.9", "bios", 2, 4096)
	x.signal(thief, Signal{Status: "WORKING", Name: InventoryScript, ExitStatus: &zero, Files: map[string][]byte{InventoryScript: inv}})
	x.signal(thief, Signal{Status: "OK"})
	x.status(thief, storage.StatusFailedCommissioning)
	if b := x.get(victim); len(b.Interfaces) != 1 || b.Interfaces[0].MACAddress != mac {
		t.Fatalf("%+v", b.Interfaces)
	}
}

func FuzzInventory(f *testing.F) {
	f.Add(testInventory("52:54:00:00:00:01", "10.1.9.9", "bios", 2, 1024))
	f.Add([]byte(`{"api_version":"1.0"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		inv, err := parseInventory(data)
		if err != nil {
			return
		}
		cpuModel(inv)
		if _, err := numaNodes(inv, true); err != nil {
			t.Error(err)
		}
		for _, n := range physicalNICs(inv) {
			describeNIC(&storage.Interface{}, n)
		}
	})
}

// TestApplyStrangeInventories writes what strangers send to a real store: refused or taken, but never half.
func TestApplyStrangeInventories(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	id := x.ready("bios")
	mac := x.get(id).Interfaces[0].MACAddress
	good := testInventory(mac, "10.1.9.9", "bios", 2, 1024)
	for name, edit := range map[string]func(doc map[string]any){
		"disk twice": func(doc map[string]any) {
			s := resources(doc)["storage"].(map[string]any)
			s["disks"] = append(s["disks"].([]any), s["disks"].([]any)[0])
		},
		"huge numbers": func(doc map[string]any) {
			resources(doc)["memory"] = map[string]any{"total": int64(1) << 62, "nodes": []any{map[string]any{"numa_node": -5, "total": int64(1) << 62}}}
		},
		"odd names": func(doc map[string]any) {
			s := resources(doc)["storage"].(map[string]any)
			s["disks"] = []any{map[string]any{"id": "../../etc", "size": 1 << 33}, map[string]any{"id": "a\x00b", "size": 1 << 33}, map[string]any{"id": "vda", "serial": "x\ny", "size": 1 << 33}}
		},
		"no disk": func(doc map[string]any) { resources(doc)["storage"] = map[string]any{} },
		"tiny disk": func(doc map[string]any) {
			resources(doc)["storage"] = map[string]any{"disks": []any{map[string]any{"id": "vda", "size": 5 << 20}}}
		},
		"no network": func(doc map[string]any) { doc["networks"] = map[string]any{} },
		"bad address": func(doc map[string]any) {
			doc["networks"].(map[string]any)["ens3"].(map[string]any)["addresses"] = []any{map[string]any{"family": "inet", "address": "300.1.1.1", "netmask": "x", "scope": "global"},
				map[string]any{"family": "inet6", "address": "fe80::1", "netmask": "64", "scope": "global"}, map[string]any{"family": "inet", "address": "192.0.2.4", "netmask": "24", "scope": "global"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			x.must(x.s.Commission(x.as(x.admin), id, CommissionParams{}))
			zero := int64(0)
			x.signal(id, Signal{Status: "WORKING", Name: InventoryScript, ExitStatus: &zero, Files: map[string][]byte{InventoryScript: change(t, good, edit)}})
			x.signal(id, Signal{Status: "OK"})
			if b := x.get(id); b.Node.Status != storage.StatusReady && b.Node.ErrorDescription == "" {
				t.Fatalf("%v without a reason", b.Node.Status)
			}
			if x.get(id).Node.Status != storage.StatusReady {
				x.must(x.s.Commission(x.as(x.admin), id, CommissionParams{}))
				x.report(id, "bios")
			}
			x.job(id, api.PowerResult{State: "off"})
		})
	}
}
