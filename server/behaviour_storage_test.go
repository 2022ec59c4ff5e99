package server_test

import (
	"fmt"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// readyWith is a Ready machine with more disks of 50 GB.
func (w *world) readyWith(disks ...string) (*node, map[string]string) {
	n := w.machine(storage.StatusReady)
	ids := map[string]string{"sda": fmt.Sprint(n.disk.ID)}
	for _, d := range disks {
		ids[d] = fmt.Sprint(n.addDisk(d, 50e9).ID)
	}
	return n, ids
}

var storageBehaviours = []behaviour{
	{102, "a layout is named, at rest, by administrators", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		w.admin.post(n.path("set_storage_layout")).field("storage_layout", "This field is required.")
		w.user.post(n.path("set_storage_layout"), "storage_layout=flat").code(403)
		w.admin.post(w.machine(storage.StatusAllocated, ownedBy(w.user)).path("set_storage_layout"), "storage_layout=flat").code(409)
		w.admin.post(n.path("set_storage_layout"), "storage_layout=flat").has(200, `"mount_point": "/"`)
	}},
	{103, "without a disk there is no layout", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		w.write(func(tx *storage.Tx) error { return tx.DeleteBlockDevice(n.disk.ID) })
		w.admin.post(n.path("set_storage_layout"), "storage_layout=flat").is(400, "Machine is missing a boot disk; no storage layout can be applied.")
	}},
	{104, "a cache wants a fast disk", same, func(w *world) {
		w.admin.post(w.machine(storage.StatusReady).path("set_storage_layout"), "storage_layout=bcache").
			is(400, "Failed to configure storage layout 'bcache': Node doesn't have an available cache device to setup bcache.")
	}},
	{105, "a boot partition can be too small", same, func(w *world) {
		w.admin.post(w.machine(storage.StatusReady).path("set_storage_layout"), "storage_layout=flat", "boot_size=1000").
			field("boot_size", "Size is too small. Minimum size is 536870912.")
	}},
	{106, "memory file systems have a kind and an absolute place", same, func(w *world) {
		p := w.machine(storage.StatusReady).path("mount_special")
		w.admin.post(p).field("fstype", "This field is required.").field("mount_point", "This field is required.")
		w.admin.post(p, "fstype=ext4", "mount_point=/mnt").field("fstype", "Select a valid choice. ext4 is not one of the available choices.")
		w.admin.post(p, "fstype=tmpfs", "mount_point=mnt").field("mount_point", "Enter a valid value.")
		w.admin.post(w.machine(storage.StatusDeployed, ownedBy(w.admin)).path("mount_special"), "fstype=tmpfs", "mount_point=/mnt").code(409)
		w.admin.post(p, "fstype=tmpfs", "mount_point=/mnt").has(200, `"mount_point": "/mnt"`)
	}},
	{107, "disks are added by administrators and have a size", same, func(w *world) {
		p := w.machine(storage.StatusReady).below("blockdevices/")
		form := []string{"name=sdb", "block_size=512", "id_path=/dev/disk/by-id/x"}
		w.user.post(p, append(form, "size=50000000000")...).code(403)
		w.admin.post(p, append(form, "size=100")...).keys("size")
		w.admin.post(p, append(form, "size=50000000000")...).eq("size", int64(50e9)).eq("type", "physical")
	}},
	{108, "a disk is found by name and by id", same, func(w *world) {
		n, ids := w.readyWith("sdb", "sdc")
		for _, key := range []string{"sdb", ids["sdb"]} {
			w.admin.get(n.below("blockdevices/%s/", key)).eq("name", "sdb").eq("id", n.disk.ID+1)
		}
		w.admin.post(n.below("raids/"), "level=raid-1", "block_devices="+ids["sdb"], "block_devices="+ids["sdc"]).code(200)
		w.admin.get(n.below("blockdevices/md0/")).eq("type", "virtual").eq("numa_node", nil)
	}},
	{109, "of a deployed machine's disk only what names it changes", same, func(w *world) {
		n := w.machine(storage.StatusDeployed, ownedBy(w.user))
		w.admin.put(n.below("blockdevices/sda/"), "name=disk0", "block_size=4096").eq("name", "disk0").eq("block_size", 512)
		w.admin.put(w.machine(storage.StatusNew).below("blockdevices/sda/"), "name=disk0").code(409)
	}},
	{110, "disks are deleted at rest, by administrators, where they are", same, func(w *world) {
		n, ids := w.readyWith("sdb")
		o := w.machine(storage.StatusReady)
		w.admin.delete(o.below("blockdevices/%s/", ids["sdb"])).code(404)
		w.user.delete(n.below("blockdevices/%s/", ids["sdb"])).code(403)
		w.admin.delete(w.machine(storage.StatusDeployed, ownedBy(w.user)).below("blockdevices/sda/")).code(409)
		w.admin.delete(n.below("blockdevices/%s/", ids["sdb"])).code(204)
	}},
	{111, "only what is formatted and not mounted is unformatted", same, func(w *world) {
		n, ids := w.readyWith("sdb")
		p := n.below("blockdevices/%s/", ids["sdb"])
		w.admin.post(p+"?op=unformat").is(400, "Block device is not formatted.")
		w.admin.post(p+"?op=format", "fstype=ext4").eq("filesystem.fstype", "ext4")
		w.admin.post(p+"?op=mount", "mount_point=/srv").eq("filesystem.mount_point", "/srv")
		w.admin.post(p+"?op=unformat").is(400, "Filesystem is mounted and cannot be unformatted. Unmount the filesystem before unformatting the block device.")
		w.admin.post(p+"?op=unmount").eq("filesystem.mount_point", nil)
		w.admin.post(p+"?op=unformat").eq("filesystem", nil)
	}},
	{112, "mounting wants a place, unmounting something mounted", same, func(w *world) {
		n, ids := w.readyWith("sdb")
		p := n.below("blockdevices/%s/", ids["sdb"])
		w.admin.post(p+"?op=format", "fstype=ext4").code(200)
		w.admin.post(p+"?op=mount").field("mount_point", "This field is required.")
		w.admin.post(p+"?op=unmount").is(400, "Filesystem is already unmounted.")
	}},
	{113, "owners format what they hold", same, func(w *world) {
		n := w.machine(storage.StatusAllocated, ownedBy(w.user))
		sdb := n.addDisk("sdb", 50e9)
		w.user.post(n.below("blockdevices/%d/?op=format", sdb.ID), "fstype=ext4").eq("filesystem.fstype", "ext4")
		r, ids := w.readyWith("sdb")
		w.user.post(r.below("blockdevices/%s/?op=format", ids["sdb"]), "fstype=ext4").code(403)
		part := w.admin.post(r.below("blockdevices/%s/partitions/", ids["sdb"])).str("id")
		w.user.post(r.below("blockdevices/%s/partition/%s?op=format", ids["sdb"], part), "fstype=ext4").code(403)
		r.update(func(x *storage.Node) { x.Status, x.OwnerID = storage.StatusAllocated, &w.User.User.ID })
		w.user.post(r.below("blockdevices/%s/partition/%s?op=format", ids["sdb"], part), "fstype=ext4").eq("filesystem.fstype", "ext4")
		d := w.machine(storage.StatusDeployed, ownedBy(w.user))
		w.user.post(d.below("blockdevices/sda/?op=format"), "fstype=ext4").code(409)
	}},
	{114, "a machine boots from a real disk of its own", same, func(w *world) {
		n, ids := w.readyWith("sdb", "sdc")
		w.admin.post(n.below("raids/"), "level=raid-1", "block_devices="+ids["sdb"], "block_devices="+ids["sdc"]).code(200)
		w.admin.post(n.below("blockdevices/md0/?op=set_boot_disk")).is(400, "Cannot set a virtual block device as the boot disk.")
		w.admin.post(w.machine(storage.StatusReady).below("blockdevices/%s/?op=set_boot_disk", ids["sda"])).code(404)
		w.admin.post(n.below("blockdevices/%s/?op=set_boot_disk", ids["sda"])).is(200, "OK")
	}},
	{115, "partitions are made at rest, by administrators, and have names", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		p := n.below("blockdevices/sda/partitions/")
		w.user.post(p, "size=10000000000").code(403)
		w.admin.post(w.machine(storage.StatusDeployed, ownedBy(w.user)).below("blockdevices/sda/partitions/"), "size=10000000000").code(409)
		id := w.admin.post(p, "size=10000000000").str("id")
		name := w.admin.get(n.below("blockdevices/sda/partition/%s", id)).str("path")
		name = name[strings.LastIndexByte(name, '/')+1:]
		w.admin.get(n.below("blockdevices/sda/partition/%s", name)).eq("path", "/dev/disk/by-dname/"+name)
	}},
	{116, "a partition that goes leaves no gap in the numbers", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		var ids []string
		for range 3 {
			ids = append(ids, w.admin.post(n.below("blockdevices/sda/partitions/"), "size=10000000000").str("id"))
		}
		before := w.admin.get(n.below("blockdevices/sda/partitions/")).all("path")
		w.admin.delete(n.below("blockdevices/sda/partition/%s", ids[0])).code(204)
		w.admin.get(n.below("blockdevices/sda/partitions/")).list("path", before[:2]...).list("id", ids[1:]...)
	}},
	{117, "a partition takes a known file system", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		p := n.below("blockdevices/sda/partition/%s", w.admin.post(n.below("blockdevices/sda/partitions/")).str("id"))
		w.admin.post(p+"?op=format", "fstype=FAT16").keys("fstype")
		w.admin.post(p+"?op=format", "fstype=ext4", "uuid=nonsense").keys("uuid")
		w.admin.post(p+"?op=unmount").is(400, "Partition is not formatted.")
	}},
	{118, "a RAID wants as many devices as its level", same, func(w *world) {
		n, ids := w.readyWith("sdb", "sdc", "sdd", "sde")
		foreign := w.machine(storage.StatusReady)
		devices := func(names ...string) (form []string) {
			for _, name := range names {
				form = append(form, "block_devices="+ids[name])
			}
			return form
		}
		for level, form := range map[string][]string{
			"raid-5":  devices("sdb", "sdc"),
			"raid-6":  devices("sdb", "sdc", "sdd"),
			"raid-10": devices("sdb", "sdc"),
			"raid-1":  devices("sdb"),
		} {
			w.admin.post(n.below("raids/"), append(form, "level="+level)...).code(400)
		}
		w.admin.post(n.below("raids/"), "level=raid-0", "block_devices="+ids["sdb"]).code(400)
		w.admin.post(n.below("raids/"), append(devices("sdb", "sdc"), "level=raid-0", "spare_devices="+ids["sdd"])...).code(400)
		w.admin.post(n.below("raids/"), "level=raid-1").code(400)
		w.admin.post(n.below("raids/"), "level=raid-1", "block_devices="+ids["sdb"], fmt.Sprintf("block_devices=%d", foreign.disk.ID)).code(400)
		w.admin.get(n.below("raids/")).is(200, "[]")
		w.admin.get(n.below("blockdevices/")).list("used_for", "Unused", "Unused", "Unused", "Unused", "Unused")
	}},
	{119, "one part of a RAID 5 is parity, and spares do not count", same, func(w *world) {
		n, ids := w.readyWith("sdb", "sdc", "sdd", "sde")
		w.admin.post(n.below("raids/"), "level=raid-5", "block_devices="+ids["sdb"], "block_devices="+ids["sdc"], "block_devices="+ids["sdd"], "spare_devices="+ids["sde"]).
			eq("size", int64(2*50e9-128<<10)).eq("spare_devices.0.name", "sde")
	}},
	{120, "devices come to a RAID and go", same, func(w *world) {
		n, ids := w.readyWith("sdb", "sdc", "sdd")
		id := w.admin.post(n.below("raids/"), "level=raid-1", "block_devices="+ids["sdb"], "block_devices="+ids["sdc"]).str("id")
		w.admin.put(n.below("raid/%s/", id), "remove_block_devices="+ids["sdd"]).code(400)
		r := w.admin.put(n.below("raid/%s/", id), "add_block_devices="+ids["sdd"], "remove_block_devices="+ids["sdb"]).code(200)
		names := []string{r.str("devices.0.name"), r.str("devices.1.name")}
		if strings.Join(names, " ") != "sdc sdd" || r.at("devices.2") != nil {
			w.t.Errorf("%v %s", names, r.Text())
		}
	}},
	{121, "a volume group has a name, and is made at rest", same, func(w *world) {
		n, ids := w.readyWith("sdb")
		r := w.admin.post(n.below("volume-groups/")).code(400)
		if m, _ := r.at("").(map[string]any); m["name"] == nil {
			w.t.Errorf("%s", r.Text())
		}
		d := w.machine(storage.StatusDeployed, ownedBy(w.user))
		w.admin.post(d.below("volume-groups/"), "name=vg", "block_devices="+ids["sdb"]).code(409)
	}},
	{122, "a logical volume takes what is free", same, func(w *world) {
		n, ids := w.readyWith("sdb")
		vg := w.admin.post(n.below("volume-groups/"), "name=vg", "block_devices="+ids["sdb"])
		p := n.below("volume-group/%s/", vg.str("id"))
		w.admin.post(p+"?op=create_logical_volume", "name=lv").eq("size", vg.at("size")).eq("name", "vg-lv")
		w.admin.get(p).eq("available_size", 0)
		w.admin.post(p+"?op=delete_logical_volume", "id=99999").code(204)
		w.admin.post(p + "?op=delete_logical_volume").code(400)
	}},
	{123, "a bcache joins a cache and a backing device", same, func(w *world) {
		n, ids := w.readyWith("sdb", "sdc")
		w.admin.post(n.below("bcaches/"), "cache_mode=writeback", "backing_device="+ids["sdb"]).field("__all__", "Bcache requires a cache_set.")
		set := w.admin.post(n.below("bcache-cache-sets/"), "cache_device="+ids["sdc"]).str("id")
		w.admin.post(n.below("bcaches/"), "cache_mode=writeback", "cache_set="+set).field("__all__", "Either backing_device or backing_partition must be specified.")
		w.admin.post(n.below("bcaches/"), "cache_mode=writeback", "cache_set="+set, "backing_device="+ids["sdb"]).eq("backing_device.name", "sdb")
	}},
	{124, "a cache set has a device, and stays while it is used", same, func(w *world) {
		n, ids := w.readyWith("sdb", "sdc")
		w.admin.post(n.below("bcache-cache-sets/")).field("__all__", "Either cache_device or cache_partition must be specified.")
		set := w.admin.post(n.below("bcache-cache-sets/"), "cache_device="+ids["sdc"]).str("id")
		w.admin.post(n.below("bcaches/"), "cache_mode=writeback", "cache_set="+set, "backing_device="+ids["sdb"]).code(200)
		w.admin.delete(n.below("bcache-cache-set/%s/", set)).is(400, "Cannot delete cache set; it's currently in use.")
	}},
	{125, "each kind of group has its own paths", same, func(w *world) {
		n, ids := w.readyWith("sdb", "sdc")
		raid := w.admin.post(n.below("raids/"), "level=raid-1", "block_devices="+ids["sdb"], "block_devices="+ids["sdc"]).str("id")
		w.admin.get(n.below("raid/%s/", raid)).code(200)
		w.admin.get(n.below("bcache/%s/", raid)).code(404)
		w.admin.get(n.below("volume-group/%s/", raid)).code(404)
	}},
}

var interfaceBehaviours = []behaviour{
	{126, "an interface has a MAC of its own", same, func(w *world) {
		p := w.machine(storage.StatusReady).below("interfaces/?op=create_physical")
		o := w.machine(storage.StatusReady)
		w.admin.post(p).field("mac_address", "This field is required.")
		r := w.admin.post(p, "mac_address="+strings.ToUpper(o.nic.MACAddress)).keys("mac_address")
		if !strings.Contains(r.Text(), "This MAC address is already in use by "+o.Hostname) {
			w.t.Errorf("%s", r.Text())
		}
	}},
	{127, "who may give which node an interface", same, func(w *world) {
		d := w.node(storage.NodeDevice, 0, ownedBy(w.user))
		w.user.post(d.below("interfaces/?op=create_physical"), "mac_address=52:54:00:aa:00:01").code(200)
		w.user.post(w.machine(storage.StatusReady).below("interfaces/?op=create_physical"), "mac_address=52:54:00:aa:00:02").code(403)
		w.admin.post(w.machine(storage.StatusDeployed, ownedBy(w.user)).below("interfaces/?op=create_physical"), "mac_address=52:54:00:aa:00:02").code(409)
		w.admin.post(w.node(storage.NodeRack, 0).below("interfaces/?op=create_physical"), "mac_address=52:54:00:aa:00:02").code(403)
	}},
	{128, "only machines have bonds, VLAN interfaces and bridges", same, func(w *world) {
		for _, kind := range []int64{storage.NodeDevice, storage.NodeRack} {
			n := w.node(kind, 0)
			for op, parent := range map[string]string{"create_bond": "parents", "create_vlan": "parent", "create_bridge": "parent"} {
				w.admin.post(n.below("interfaces/?op=%s", op), "name=x", fmt.Sprintf("%s=%d", parent, n.nic.ID), "vlan=5001").code(404)
			}
		}
	}},
	{129, "a bond of nothing has three faults", same, func(w *world) {
		w.admin.post(w.machine(storage.StatusReady).below("interfaces/?op=create_bond")).keys("mac_address", "name", "parents").
			field("mac_address", "This field cannot be blank.").field("name", "This field is required.").field("parents", "A bond interface must have one or more parents.")
	}},
	{130, "a VLAN interface of nothing has two", same, func(w *world) {
		w.admin.post(w.machine(storage.StatusReady).below("interfaces/?op=create_vlan")).keys("vlan", "parent").
			field("vlan", "A VLAN interface must be connected to a tagged VLAN.").field("parent", "A VLAN interface must have exactly one parent.")
	}},
	{131, "a bridge of nothing has three, and one parent list", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		w.admin.post(n.below("interfaces/?op=create_bridge")).keys("name", "parent", "mac_address").field("parent", "A bridge interface must have at least one parent.")
		w.admin.post(n.below("interfaces/?op=create_bridge"), "name=br0", fmt.Sprintf("parent=%d", n.nic.ID), fmt.Sprintf("parents=%d", n.nic.ID)).
			is(400, "Cannot specify both parent and parents fields.")
	}},
	{132, "who holds a machine may bridge it, until it is released", same, func(w *world) {
		n := w.machine(storage.StatusAllocated, ownedBy(w.admin))
		w.admin.post(n.below("interfaces/?op=create_bridge"), "name=br0", fmt.Sprintf("parent=%d", n.nic.ID)).eq("type", "bridge")
		w.admin.get(n.below("interfaces/")).list("name", "eth0", "br0")
		w.admin.post(n.path("release")).code(200)
		w.admin.get(n.below("interfaces/")).list("name", "eth0")
	}},
	{133, "an interface is found by its name, and its MTU is the largest around it", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		o := n.addNIC("eth1", "52:54:00:aa:00:01")
		w.admin.post(n.below("interfaces/?op=create_bond"), "name=bond0", "mac_address=52:54:00:aa:00:01", fmt.Sprintf("parents=%d", n.nic.ID), fmt.Sprintf("parents=%d", o.ID), "mtu=9000").code(200)
		w.admin.get(n.below("interfaces/bond0/")).eq("type", "bond").eq("effective_mtu", 9000)
		w.admin.get(n.below("interfaces/eth0/")).eq("effective_mtu", 9000)
		w.admin.put("vlans/5001/", "mtu=9500").code(200)
		w.admin.get(n.below("interfaces/%d/", n.nic.ID)).eq("effective_mtu", 9500)
	}},
	{134, "what may change of an interface depends on what its node is doing", same, func(w *world) {
		v := w.vlan(20)
		d := w.machine(storage.StatusDeployed, ownedBy(w.user))
		w.admin.put(d.below("interfaces/eth0/"), "name=eth9", "mac_address=52:54:00:aa:00:01", "vlan="+v).eq("name", "eth9").eq("mac_address", "52:54:00:aa:00:01").eq("vlan.id", 5001)
		w.admin.put(w.machine(storage.StatusDeploying, ownedBy(w.user)).below("interfaces/eth0/"), "name=eth9").code(409)
		r := w.node(storage.NodeRack, 0)
		w.admin.put(r.below("interfaces/eth0/"), "name=eth9", "vlan="+v).eq("name", "eth0").eq("vlan.id", 5002)
		tagged := storage.Interface{NodeID: r.ID, Name: "eth0.20", Type: "vlan", MACAddress: r.nic.MACAddress, Enabled: true}
		w.write(func(tx *storage.Tx) error { return tx.InsertInterface(&tagged) })
		w.admin.put(r.below("interfaces/%d/", tagged.ID), "vlan="+v).code(403)
	}},
	{135, "links agree with each other", same, func(w *world) {
		a, b := w.subnet("10.1.0.0/24"), w.subnet("10.2.0.0/24", "vlan="+w.vlan(20))
		p := w.machine(storage.StatusReady).below("interfaces/eth0/?op=link_subnet")
		w.admin.post(p).field("mode", "This field is required.")
		w.admin.post(p, "mode=AUTO", "subnet="+a).code(200)
		w.admin.post(p, "mode=AUTO", "subnet="+b).code(400)
		w.admin.post(p, "mode=LINK_UP").code(400)
		w.admin.post(p, "mode=LINK_UP", "force=True").eq("links.0.mode", "link_up").eq("links.1", nil)
	}},
	{136, "devices have fixed addresses only", same, func(w *world) {
		s := w.subnet("10.1.0.0/24")
		p := w.node(storage.NodeDevice, 0, ownedBy(w.user)).below("interfaces/eth0/?op=link_subnet")
		for _, mode := range []string{"AUTO", "DHCP", "LINK_UP"} {
			w.user.post(p, "mode="+mode, "subnet="+s).code(400)
		}
		w.user.post(p, "mode=STATIC", "subnet="+s).eq("links.0.mode", "static")
	}},
	{137, "unlinking names the link, disconnecting takes all", same, func(w *world) {
		s := w.subnet("10.1.0.0/24")
		n := w.machine(storage.StatusReady)
		n.link(s, "10.1.0.9")
		w.admin.post(n.below("interfaces/eth0/?op=unlink_subnet")).field("id", "This field is required.")
		w.admin.post(n.below("interfaces/eth0/?op=disconnect")).eq("links", []any{}).eq("vlan", nil)
	}},
	{138, "a default gateway needs a gateway", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		n.link(w.subnet("10.1.0.0/24"), "10.1.0.9")
		w.admin.post(n.below("interfaces/eth0/?op=set_default_gateway")).field("__all__", "This interface has no usable gateways.")
	}},
	{139, "a machine's interfaces are an administrator's, at rest", same, func(w *world) {
		s := w.subnet("10.1.0.0/24")
		free, busy := w.machine(storage.StatusReady), w.machine(storage.StatusDeploying, ownedBy(w.user))
		for _, op := range []string{"link_subnet", "unlink_subnet", "disconnect", "set_default_gateway"} {
			form := []string{"mode=AUTO", "subnet=" + s, "id=1"}
			w.user.post(free.below("interfaces/eth0/?op=%s", op), form...).code(403)
			w.admin.post(busy.below("interfaces/eth0/?op=%s", op), form...).code(409)
		}
		w.user.put(free.below("interfaces/eth0/"), "name=x").code(403)
		w.user.delete(free.below("interfaces/eth0/")).code(403)
		w.admin.delete(busy.below("interfaces/eth0/")).code(409)
		w.admin.delete(free.below("interfaces/eth0/")).code(204)
	}},
}
