package server_test

import (
	"encoding/base64"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

const (
	allocate = "machines/?op=allocate"
	release  = "machines/?op=release"
)

var allocateBehaviours = []behaviour{
	{53, "nothing is free", same, func(w *world) {
		w.machine(storage.StatusNew)
		w.user.post(allocate).is(409, "No machine available.")
	}},
	{54, "a name that is unknown or taken comes back with the question", same, func(w *world) {
		w.user.post(allocate, "name=h").is(409, `No available machine matches constraints: [('name', ['h'])] (resolved to "name=h")`)
		n := w.machine(storage.StatusAllocated, ownedBy(w.other))
		w.user.post(allocate, "name="+n.Hostname).is(409, `No available machine matches constraints: [('name', ['`+n.Hostname+`'])] (resolved to "name=`+n.Hostname+`")`)
	}},
	{55, "an unknown system id has an answer of its own", same, func(w *world) {
		w.user.post(allocate, "system_id=x").is(409, "No machine with system ID x available.")
	}},
	{56, "specifiers come back as what they found", same, func(w *world) {
		space := w.admin.post("spaces/", "name=foo").str("id")
		v := w.vlan(10, "space="+space)
		a, b := w.subnet("10.1.0.0/24", "vlan="+v), w.subnet("10.2.0.0/24", "vlan="+v)
		w.machine(storage.StatusReady)
		w.user.post(allocate, "subnets=space:foo").is(409, `No available machine matches constraints: [('subnets', ['space:foo'])] (resolved to "subnets=`+a+`,`+b+`")`)
	}},
	{57, "a constraint that nobody knows", same, func(w *world) { w.user.post(allocate, "bogus=1").field("bogus", "No such constraint.") }},
	{58, "unknown is a bad request, unmatched a conflict", same, func(w *world) {
		w.machine(storage.StatusReady)
		w.admin.post("zones/", "name=east").code(200)
		w.admin.post("resourcepools/", "name=spare").code(200)
		w.user.post(allocate, "arch=sparc").keys("arch")
		w.user.post(allocate, "zone=nowhere").keys("zone")
		w.user.post(allocate, "pool=nowhere").keys("pool")
		w.user.post(allocate, "tags=nothing").keys("tags")
		w.user.post(allocate, "zone=east").code(409)
		w.user.post(allocate, "pool=spare").code(409)
	}},
	{59, "numbers may have a point", same, func(w *world) {
		w.machine(storage.StatusReady)
		w.user.post(allocate, "cpu_count=plenty").keys("cpu_count")
		w.user.post(allocate, "mem=bags").keys("mem")
		w.user.post(allocate, "cpu_count=1.0").code(200)
	}},
	{60, "tags in any punctuation must all be there", same, func(w *world) {
		for _, form := range [][]string{{"tags=fast, stable cute"}, {"tags=fast", "tags=stable", "tags=cute"}, {"tags=fast,stable", "tags=cute"}} {
			n := w.machine(storage.StatusReady)
			w.machine(storage.StatusReady)
			for _, tag := range []string{"fast", "stable", "cute"} {
				w.admin.post("tags/", "name="+tag)
				w.admin.post("tags/"+tag+"/?op=update_nodes", "add="+n.SystemID).code(200)
			}
			w.user.post(allocate, form...).eq("system_id", n.SystemID)
			w.user.post(allocate, form...).code(409)
		}
	}},
	{61, "a storage constraint tells which disk it means", same, func(w *world) {
		n := w.deployable(storage.StatusReady) // the first one of a constraint is the disk that holds the root
		n.disk.Tags = []string{"ssd"}
		w.write(func(tx *storage.Tx) error { return tx.UpdateBlockDevice(&n.disk) })
		d := n.addDisk("sdb", 20e9, "slow")
		w.user.post(allocate, "storage=needed:10(ssd)", "dry_run=true").eq("constraints_by_type.storage.needed", []int64{n.disk.ID})
		w.user.post(allocate, "storage=root:10(ssd),more:10(slow)").eq("constraints_by_type.storage.root", []int64{n.disk.ID}).eq("constraints_by_type.storage.more", []int64{d.ID})
	}},
	{62, "an interface constraint tells which interface, at length if asked", same, func(w *world) {
		w.admin.put("fabrics/0/", "name=ubuntu").code(200)
		n := w.machine(storage.StatusReady)
		form := []string{"interfaces=needed:fabric=ubuntu", "verbose=true"}
		dry := w.user.post(allocate, append(form, "dry_run=true")...).eq("constraints_by_type.interfaces.needed", []int64{n.nic.ID})
		if dry.at("constraints_by_type.verbose_interfaces") == nil {
			w.t.Errorf("%s", dry.Text())
		}
		w.admin.get(n.path("")).eq("status_name", "Ready")
		w.user.post(allocate, form...).eq("constraints_by_type.interfaces.needed", []int64{n.nic.ID}).eq("status_name", "Allocated")
	}},
	{63, "who allocates owns one machine", same, func(w *world) {
		a, b := w.machine(storage.StatusReady), w.machine(storage.StatusReady)
		w.user.post(allocate, "agent_name=juju").eq("status_name", "Allocated").eq("owner", "user").eq("system_id", a.SystemID)
		w.admin.get("machines/?agent_name=juju").list("system_id", a.SystemID)
		w.admin.get(b.path("")).eq("owner", nil)
		w.user.post(allocate).eq("system_id", b.SystemID)
		w.admin.get("machines/?agent_name=").list("system_id", b.SystemID)
	}},
	{64, "no machine becomes a host of virtual ones any more", same, func(w *world) {
		for _, flag := range []string{"install_kvm", "install_rackd", "register_vmhost"} {
			w.user.post(allocate, flag+"=true").is(400, "Support for "+flag+" allocation parameter has been removed.")
		}
	}},
	{65, "the smallest that fits is taken", same, func(w *world) {
		w.machine(storage.StatusReady, func(n *storage.Node) { n.CPUCount, n.Memory = 1, 16<<10 })
		least := w.machine(storage.StatusReady, func(n *storage.Node) { n.CPUCount, n.Memory = 4, 4<<10 })
		w.machine(storage.StatusReady, func(n *storage.Node) { n.CPUCount, n.Memory = 16, 1<<10 })
		w.user.post(allocate).eq("system_id", least.SystemID)
	}},
}

var machineBehaviours = []behaviour{
	{66, "foreign machines are forbidden, unknown ones not found", same, func(w *world) {
		w.user.get(w.machine(storage.StatusAllocated, ownedBy(w.other)).path("")).code(403)
		w.admin.get("machines/nobody/").is(404, "No Machine matches the given query.")
		w.admin.get("machines/"+w.node(storage.NodeDevice, 0).SystemID+"/").is(404, "No Machine matches the given query.")
	}},
	{67, "a machine holds what it refers to", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		w.admin.get(n.path("")).eq("zone.name", "default").eq("pool.name", "default").eq("boot_interface.id", n.nic.ID).eq("owner", nil).eq("parent", nil)
		w.admin.get(w.machine(storage.StatusAllocated, ownedBy(w.user)).path("")).eq("owner", "user")
	}},
	{68, "machines are changed by administrators, and not when locked", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		w.user.put(n.path(""), "description=x").code(403)
		before := w.admin.get(n.path("")).Text()
		if after := w.admin.put(n.path("")).code(200); after.Text() != before {
			w.t.Errorf("an empty update changed\n%s\nto\n%s", before, after.Text())
		}
		w.admin.put(n.path(""), "no_such_field=1").code(200)
		w.admin.put(w.machine(storage.StatusDeployed, ownedBy(w.user), locked).path(""), "description=x").code(403)
	}},
	{69, "a bad host name has two faults", same, func(w *world) {
		w.admin.put(w.machine(storage.StatusReady).path(""), "hostname=.").field("hostname", "DNS name contains an empty label.", "Nonexistant domain.")
	}},
	{70, "blanks keep the zone, letters multiply the swap", same, func(w *world) {
		p := w.machine(storage.StatusReady).path("")
		w.admin.put(p, "zone=").eq("zone.name", "default")
		for text, size := range map[string]int64{"5K": 5e3, "5M": 5e6, "5G": 5e9, "5T": 5e12, "7": 7} {
			w.admin.put(p, "swap_size="+text).eq("swap_size", size)
		}
		w.admin.put(p, "swap_size=5E").field("swap_size", "Invalid size for swap: 5E")
	}},
	{71, "without a power type there are no power parameters", same, func(w *world) {
		n := w.machine(storage.StatusReady, func(n *storage.Node) {
			n.PowerType, n.PowerParameters = "ipmi", []byte(`{"power_address": "10.0.0.9"}`)
		})
		w.admin.put(n.path(""), "power_type=", "power_parameters_address=x").field("power_parameters", "Unknown parameter(s): address.")
		w.admin.put(n.path(""), "power_type=").eq("power_type", "")
		w.admin.get(n.path("power_parameters")).is(200, "{}")
	}},
	{72, "machines are deleted by administrators, locked ones by force", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		w.user.delete(n.path("")).code(403)
		l := w.machine(storage.StatusDeployed, ownedBy(w.user), locked)
		w.admin.delete(l.path("")).code(403)
		w.admin.delete(n.path("") + "?force=true").code(204)
		w.admin.get(n.path("")).code(404)
	}},
	{73, "deploying a free machine takes it first", same, func(w *world) {
		w.user.post(w.deployable(storage.StatusReady).path("deploy")).eq("status_name", "Deploying").eq("owner", "user")
		w.user.post(w.deployable(storage.StatusAllocated, ownedBy(w.user)).path("deploy")).eq("status_name", "Deploying")
	}},
	{74, "only one's own machines are deployed, and only from rest", same, func(w *world) {
		w.user.post(w.deployable(storage.StatusAllocated, ownedBy(w.other)).path("deploy")).code(403)
		w.admin.post(w.deployable(storage.StatusNew).path("deploy")).is(409, "Can't deploy a machine that is in the 'New' state")
		w.user.post(w.deployable(storage.StatusDeployed, ownedBy(w.user)).path("deploy")).is(409, "Can't deploy a machine that is in the 'Deployed' state")
	}},
	{75, "a system that is not there is answered with those that are", same, func(w *world) {
		w.user.post(w.deployable(storage.StatusReady).path("deploy"), "distro_series=bad").
			field("distro_series", "'bad' is not a valid distro_series. It should be one of: '', 'custom/web', 'ubuntu/jammy', 'ubuntu/noble'.")
	}},
	{76, "each deployment starts from the defaults", same, func(w *world) {
		n := w.deployable(storage.StatusReady)
		w.user.post(n.path("deploy"), "distro_series=jammy", "enable_hw_sync=true").eq("distro_series", "jammy").eq("enable_hw_sync", true)
		n.update(func(s *storage.Node) { s.Status = storage.StatusAllocated })
		w.user.post(n.path("deploy")).eq("distro_series", "noble").eq("osystem", "ubuntu").eq("enable_hw_sync", false).eq("ephemeral_deploy", false)
	}},
	{77, "a kernel that the image does not have", same, func(w *world) {
		w.user.post(w.deployable(storage.StatusReady).path("deploy"), "hwe_kernel=bad").field("hwe_kernel", "bad is not available for ubuntu/noble on amd64/generic.")
	}},
	{78, "what cannot be written down is not begun", differs, func(w *world) {
		n := w.deployable(storage.StatusReady)
		d, bad := n.addDisk("sdb", 50e9), "relative" // a mount point that no installer takes
		w.write(func(tx *storage.Tx) error {
			return tx.InsertFilesystem(&storage.Filesystem{NodeID: n.ID, BlockDeviceID: &d.ID, Fstype: "ext4", MountPoint: &bad})
		})
		w.user.post(n.path("deploy")).keys("storage")
		w.admin.get(n.path("")).eq("status_name", "Ready")
		// What an operator's template makes of a machine is rendered, and refused in MAAS's words.
		m := w.deployable(storage.StatusReady)
		w.admin.put("/ingot/v1/preseed-templates/curtin_userdata_ubuntu", "content={{if eq .node.hostname \""+m.Hostname+"\"}}{{.nothing}}{{end}}x: y\n").code(200)
		w.user.post(m.path("deploy")).has(400, "Failed to render preseed: template curtin_userdata_ubuntu: line 1: ", "nothing")
		w.admin.get(m.path("")).eq("status_name", "Ready")
	}},
	{79, "a machine without disks is deployed to memory by itself", same, func(w *world) {
		n := w.deployable(storage.StatusReady)
		w.write(func(tx *storage.Tx) error { return tx.DeleteBlockDevice(n.disk.ID) })
		w.user.post(n.path("deploy")).eq("ephemeral_deploy", true)
		w.admin.get(n.path("")).eq("status_name", "Deploying")
	}},
	{80, "user data comes plain or encoded", same, func(w *world) {
		for _, text := range []string{"#!/bin/sh\necho it\n", base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\necho it\n"))} {
			n := w.deployable(storage.StatusReady)
			w.user.post(n.path("deploy"), "user_data="+text).code(200)
			w.write(func(tx *storage.Tx) error {
				s, err := tx.NodeByID(n.ID)
				if string(s.UserData) != "#!/bin/sh\necho it\n" {
					w.t.Errorf("stored %q", s.UserData)
				}
				return err
			})
		}
	}},
	{81, "releasing what is free changes nothing", same, func(w *world) {
		w.admin.post(w.machine(storage.StatusReady).path("release")).eq("status_name", "Ready")
		w.admin.post(w.machine(storage.StatusRetired).path("release")).is(409, "Machine cannot be released in its current state ('Retired').")
		w.user.post(w.machine(storage.StatusDeployed, ownedBy(w.user), locked).path("release")).code(403)
		w.admin.post(w.machine(storage.StatusAllocated, ownedBy(w.user)).path("release")).eq("owner", nil)
		w.user.post(w.machine(storage.StatusAllocated, ownedBy(w.other)).path("release")).code(403)
	}},
	{82, "releasing forgets the kernel and may wipe the disks", same, func(w *world) {
		n := w.machine(storage.StatusAllocated, ownedBy(w.user), func(n *storage.Node) { n.HWEKernel = "hwe-24.04" })
		w.user.post(n.path("release")).eq("hwe_kernel", nil)
		d := w.machine(storage.StatusDeployed, ownedBy(w.user), func(n *storage.Node) { n.Osystem, n.DistroSeries = "ubuntu", "noble" })
		w.user.post(d.path("release"), "erase=true").eq("status_name", "Disk erasing")
	}},
	{83, "a list to release names whom it fails for", same, func(w *world) {
		w.user.post(release).is(200, "[]")
		w.user.post(release, "machines=nobody").is(400, "Unknown machine(s): nobody.")
		mine, foreign := w.machine(storage.StatusAllocated, ownedBy(w.user)), w.machine(storage.StatusAllocated, ownedBy(w.other))
		l := w.machine(storage.StatusDeployed, ownedBy(w.user), locked)
		w.user.post(release, "machines="+mine.SystemID, "machines="+foreign.SystemID, "machines="+l.SystemID).has(403, foreign.SystemID, l.SystemID).lacks(mine.SystemID)
		w.admin.get(mine.path("")).eq("status_name", "Allocated")
	}},
	{84, "a list to release answers those that changed", same, func(w *world) {
		a, b := w.machine(storage.StatusReady), w.machine(storage.StatusAllocated, ownedBy(w.user))
		c := w.machine(storage.StatusAllocated, ownedBy(w.user))
		w.admin.post(release, "machines="+a.SystemID, "machines="+b.SystemID, "machines="+c.SystemID).eq("", []string{b.SystemID, c.SystemID})
	}},
	{85, "one that cannot be released keeps them all", same, func(w *world) {
		a, b := w.machine(storage.StatusNew), w.machine(storage.StatusTesting)
		c := w.machine(storage.StatusAllocated, ownedBy(w.user))
		w.admin.post(release, "machines="+a.SystemID, "machines="+b.SystemID, "machines="+c.SystemID).
			is(409, "Machine(s) cannot be released in their current state: "+a.SystemID+" ('New'), "+b.SystemID+" ('Testing').")
		w.admin.get(c.path("")).eq("status_name", "Allocated")
	}},
	{86, "locks are for machines in use", same, func(w *world) {
		w.admin.post(w.machine(storage.StatusReady).path("lock")).code(409)
		n := w.machine(storage.StatusDeployed, ownedBy(w.user))
		w.user.post(n.path("unlock")).is(409, "Machine is not locked")
		w.user.post(n.path("lock")).eq("locked", true)
		w.user.post(n.path("lock")).is(409, "Machine is already locked")
		w.user.post(n.path("unlock")).eq("locked", false)
	}},
	{87, "power is for owners", same, func(w *world) {
		w.admin.post(w.machine(storage.StatusReady).path("power_on")).is(409, "Can't start node: it hasn't been allocated.")
		w.user.post(w.machine(storage.StatusAllocated, ownedBy(w.other)).path("power_on")).code(403)
	}},
	{88, "a power-off that sends nothing answers nothing", same, func(w *world) {
		p := w.machine(storage.StatusAllocated, ownedBy(w.user)).path("power_off")
		w.user.post(p).is(200, "null")
		w.user.post(p).is(200, "null")
	}},
	{89, "only what runs can be aborted", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		w.admin.post(n.path("abort")).is(409, "Cannot abort in current state: node "+n.SystemID+" is in state Ready.")
	}},
	{90, "tests need scripts, and network tests a network", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		w.admin.post(n.path("test"), "testing_scripts=none-such").is(400, "No testing scripts found!")
		w.admin.upload("scripts/", []string{"name=net", "type=testing"}, "script=net="+"#!/bin/sh\n# --- Start MAAS 1.0 script metadata ---\n# name: net\n# script_type: testing\n# parameters:\n#   interface: {type: interface}\n# --- End MAAS 1.0 script metadata ---\nexit 0\n").code(200)
		bare := w.machine(storage.StatusReady)
		w.write(func(tx *storage.Tx) error { return tx.DeleteInterface(bare.nic.ID) })
		w.admin.post(bare.path("test"), "testing_scripts=net").is(400, "An interface must be configured to run network testing!")
	}},
	{91, "failed tests may be overruled", same, func(w *world) {
		w.admin.post(w.machine(storage.StatusFailedTesting).path("override_failed_testing")).eq("status_name", "Ready")
		d := w.machine(storage.StatusFailedTesting, ownedBy(w.user), func(n *storage.Node) {
			n.PreviousStatus, n.Osystem, n.DistroSeries = storage.StatusDeployed, "ubuntu", "noble"
		})
		w.admin.post(d.path("override_failed_testing")).eq("status_name", "Deployed")
		w.admin.post(w.machine(storage.StatusReady).path("override_failed_testing")).code(409)
	}},
	{92, "owners mark their machines broken and say why", same, func(w *world) {
		w.user.post(w.machine(storage.StatusAllocated, ownedBy(w.other)).path("mark_broken")).code(403)
		w.user.post(w.machine(storage.StatusAllocated, ownedBy(w.user)).path("mark_broken"), "comment=fan").eq("status_name", "Broken")
		n := w.machine(storage.StatusDeployed, ownedBy(w.user))
		w.user.post(n.path("mark_broken"), "error_description=smoke").eq("status_name", "Broken")
		w.write(func(tx *storage.Tx) error {
			s, err := tx.NodeByID(n.ID)
			if s.ErrorDescription != "smoke" {
				w.t.Errorf("described as %q", s.ErrorDescription)
			}
			return err
		})
	}},
	{93, "administrators mark them fixed", same, func(w *world) {
		n := w.machine(storage.StatusBroken)
		w.user.post(n.path("mark_fixed")).code(403)
		w.admin.post(n.path("mark_fixed")).eq("status_name", "Ready")
		d := w.machine(storage.StatusBroken, ownedBy(w.user), func(n *storage.Node) {
			n.PreviousStatus, n.Osystem, n.DistroSeries = storage.StatusDeployed, "ubuntu", "noble"
		})
		w.admin.post(d.path("mark_fixed")).eq("status_name", "Deployed")
		w.admin.post(w.machine(storage.StatusReady).path("mark_fixed")).is(409, "Can't mark a non-broken node as 'Ready'.")
	}},
	{94, "commissioning is for administrators", same, func(w *world) { w.user.post(w.machine(storage.StatusNew).path("commission")).code(403) }},
	{95, "a machine's credentials are for administrators", same, func(w *world) {
		n := w.machine(storage.StatusDeployed, ownedBy(w.user))
		w.user.get(n.path("get_token")).code(403)
		w.admin.get(n.path("get_token")).is(200, "null")
		t := storage.NodeToken{NodeID: n.ID, ConsumerKey: strings.Repeat("c", 18), TokenKey: strings.Repeat("t", 18), TokenSecret: strings.Repeat("s", 32)}
		w.write(func(tx *storage.Tx) error { return tx.InsertNodeToken(&t) })
		w.admin.get(n.path("get_token")).eq("token_key", t.TokenKey).eq("token_secret", t.TokenSecret).eq("consumer_key", t.ConsumerKey)
	}},
	{96, "curtin's configuration exists while there is something to install", same, func(w *world) {
		ready := w.machine(storage.StatusReady)
		w.admin.get(ready.path("get_curtin_config")).is(400, "Machine "+ready.Hostname+" is not in a deployment state.")
		w.other.get(w.machine(storage.StatusDeployed, ownedBy(w.user)).path("get_curtin_config")).code(403)
		w.admin.get("machines/nobody/?op=get_curtin_config").code(404)
		n := w.deployable(storage.StatusReady)
		w.user.post(n.path("deploy")).code(200)
		w.admin.get(n.path("get_curtin_config")).has(200, "partitioning_commands:", "netboot_off", "/"+n.SystemID).header("Content-Type", "text/plain")
	}},
	{97, "annotations are the owner's, and go when emptied", same, func(w *world) {
		n := w.machine(storage.StatusAllocated, ownedBy(w.user))
		w.admin.post(n.path("set_workload_annotations"), "k=v").code(409)
		w.user.post(n.path("set_workload_annotations"), "k=v", "l=w").eq("workload_annotations", map[string]string{"k": "v", "l": "w"}).eq("owner_data", map[string]string{"k": "v", "l": "w"})
		w.user.post(n.path("set_workload_annotations"), "k=").eq("workload_annotations", map[string]string{"l": "w"})
	}},
	{98, "details are BSON, for those who may see the machine", same, func(w *world) {
		n := w.machine(storage.StatusAllocated, ownedBy(w.other))
		w.user.get(n.below("?op=details")).code(403)
		w.admin.get("nodes/nobody/?op=details").code(404)
		r := w.admin.get(n.below("?op=details")).code(200).header("Content-Type", "application/bson")
		if b := r.Text(); !strings.Contains(b, "lshw\x00") || !strings.Contains(b, "lldp\x00") || int(r.Body[0])|int(r.Body[1])<<8 != len(r.Body) {
			w.t.Errorf("%q", b)
		}
	}},
	{99, "an administrator reads power parameters, locked or not", same, func(w *world) {
		n := w.machine(storage.StatusDeployed, ownedBy(w.user), locked, func(n *storage.Node) {
			n.PowerType, n.PowerParameters = "ipmi", []byte(`{"power_address": "10.0.0.9"}`)
		})
		w.user.get(n.below("?op=power_parameters")).code(403)
		w.admin.get(n.below("?op=power_parameters")).eq("power_address", "10.0.0.9")
	}},
	{100, "nodes/ID/ reads, and points to the real thing", same, func(w *world) {
		for _, kind := range []int64{storage.NodeMachine, storage.NodeDevice, storage.NodeRack, storage.NodeRegion} {
			n := w.node(kind, storage.StatusReady)
			w.admin.post(n.below("")).code(405)
			w.admin.put(n.below("")).code(405)
			w.admin.get(n.below("")).eq("resource_uri", n.uri())
		}
	}},
	{101, "a configuration is restored at rest, by administrators", same, func(w *world) {
		for _, op := range []string{"restore_networking_configuration", "restore_storage_configuration", "restore_default_configuration"} {
			w.user.post(w.machine(storage.StatusReady).path(op)).code(403)
			w.admin.post(w.machine(storage.StatusAllocated, ownedBy(w.user)).path(op)).code(409)
			w.admin.post(w.machine(storage.StatusReady).path(op)).code(200)
			w.admin.post(w.machine(storage.StatusFailedTesting).path(op)).code(200)
		}
	}},
}
