package server_test

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/storage"
)

var (
	aTag        = named("name", "name", "tags/", "name=NAME")
	aNote       = named("id", "id", "notifications/", "message=NAME", "admins=true")
	aZone       = named("name", "name", "zones/", "name=NAME")
	aGroup      = named("id", "id", "groups/", "name=NAME")
	aSource     = named("id", "id", "boot-sources/", "url=http://x.example/NAME", "keyring_filename=/k.gpg")
	aRepository = named("id", "id", "package-repositories/", "name=NAME", "url=http://x.example/NAME")
	aPool       = named("id", "id", "resourcepools/", "name=NAME")
	aFabric     = named("id", "id", "fabrics/", "name=NAME")
	aDomain     = named("id", "id", "domains/", "name=NAME.example")
	aSnippet    = named("id", "id", "dhcp-snippets/", "name=NAME", "value=x")
)

// recipes are what operations need to do their work, beyond what a roleWorld fills in.
var recipes = map[string]func(w *walker, t *testing.T) recipe{
	// Machines
	"machine.abort":                           inStatus(storage.StatusCommissioning),
	"machine.deploy":                          deployRecipe,
	"machine.exit_rescue_mode":                inStatus(storage.StatusRescueMode),
	"machine.lock":                            inStatus(storage.StatusDeployed),
	"machine.unlock":                          inStatus(storage.StatusDeployed, "locked"),
	"machine.mark_broken":                     inStatus(storage.StatusAllocated),
	"machine.mark_fixed":                      inStatus(storage.StatusBroken),
	"machine.override_failed_testing":         inStatus(storage.StatusFailedTesting),
	"machine.power_on":                        inStatus(storage.StatusDeployed),
	"machine.rescue_mode":                     inStatus(storage.StatusDeployed),
	"machine.set_owner_data":                  inStatus(storage.StatusAllocated, "k=v"),
	"machine.set_workload_annotations":        inStatus(storage.StatusAllocated, "k=v"),
	"machine.set_storage_layout":              plain("storage_layout=blank"),
	"machine.mount_special":                   plain("fstype=tmpfs", "mount_point=/mnt"),
	"machine.get_curtin_config":               installing,
	"machine.test":                            withScript("testing_scripts"),
	"machine.unmount_special":                 mounted,
	"machines.add_chassis":                    cannot(501),
	"node_device.read":                        hardware,
	"node_device.delete":                      hardware,
	"node_script_result.read":                 resultSet,
	"node_script_result.update":               with(resultSet, "suppressed=true"),
	"node_script_result.delete":               resultSet,
	"node_script_result.download":             resultSet,
	"device.set_owner_data":                   with(ownDevice, "k=v"),
	"device.set_workload_annotations":         with(ownDevice, "k=v"),
	"rack_controller.abort":                   cannot(409),
	"rack_controller.override_failed_testing": cannot(409),
	"rack_controller.power_on":                cannot(503),
	"rack_controller.test":                    cannot(501),
	"region_controller.delete":                plain("force=true"),
	"machines.create":                         plain("architecture=amd64", "power_type=manual", "mac_addresses=52:54:00:06:00:01"),
	"machines.is_action_in_progress":          func(w *walker, _ *testing.T) recipe { return recipe{by: w.e.Anon} },
	"devices.is_action_in_progress":           func(w *walker, _ *testing.T) recipe { return recipe{by: w.e.Anon} },
	"nodes.is_action_in_progress":             func(w *walker, _ *testing.T) recipe { return recipe{by: w.e.Anon} },
	"rack_controllers.is_action_in_progress":  func(w *walker, _ *testing.T) recipe { return recipe{by: w.e.Anon} },
	// Storage
	"bcache_cache_set.delete":  cacheSet,
	"bcache_cache_sets.create": newDisks("cache_device=DISK"),
	"bcaches.create": func(w *walker, t *testing.T) recipe {
		m := w.machine(t)
		return recipe{at: map[string]string{"system_id": m["system_id"]}, form: []string{"cache_set=" + m["bcache_cache_set"], "cache_mode=writeback", "backing_device=" + w.disk(t, m["system_id"])}}
	},
	"block_device.update":   onDisk(),
	"block_device.format":   onDisk(),
	"block_device.mount":    onDisk("format fstype=ext4"),
	"block_device.unmount":  onDisk("format fstype=ext4", "mount mount_point=/srv"),
	"block_device.unformat": onDisk("format fstype=ext4"),
	"block_devices.create":  plain("name=sdz", "id_path=/dev/z", "size=50000000000", "block_size=512"),
	"partition.mount":       onPartition("format fstype=ext4"),
	"partition.unmount":     onPartition("format fstype=ext4", "mount mount_point=/srv"),
	"partition.unformat":    onPartition("format fstype=ext4"),
	"raid.update":           func(w *walker, t *testing.T) recipe { r := raid(w, t); r.form = []string{"name=md9"}; return r },
	"raids.create":          newDisks("level=raid-1", "block_devices=DISK block_devices=DISK"),
	"volume_groups.create":  newDisks("name=vg9", "block_devices=DISK"),
	"vmfs_datastores.create": func(w *walker, t *testing.T) recipe {
		r := newDisks("name=ds", "block_devices=DISK")(w, t)
		r.status = 400
		return r
	},
	// Networks
	"network.list_connected_macs": func(w *walker, _ *testing.T) recipe {
		return recipe{at: map[string]string{"name": "cidr:10.2.0.0/24"}}
	},
	"network.read":       func(w *walker, _ *testing.T) recipe { return recipe{at: map[string]string{"name": "cidr:10.2.0.0/24"}} },
	"reserved_ip.read":   reservation,
	"reserved_ip.update": with(reservation, "comment=c"),
	"reserved_ip.delete": reservation,
	"static_routes.create": func(w *walker, t *testing.T) recipe {
		return recipe{form: []string{"source=" + w.thing(t, "subnets/", "cidr", "10.77.0.0/24"), "destination=" + w.thing(t, "subnets/", "cidr", "10.78.0.0/24"), "gateway_ip=10.77.0.1"}}
	},
	"dns_resources.create":        plain("fqdn=UNIQUE.maas", "ip_addresses=10.2.0.99"),
	"dns_resource_records.create": plain("fqdn=UNIQUE.maas", "rrtype=TXT", "rrdata=x"),
	"dhcp_snippet.revert": func(w *walker, t *testing.T) recipe {
		r := aSnippet(w, t)
		callAs(t, w.e, w.e.Admin).put("dhcp-snippets/"+r.at["id"]+"/", "value=y").code(200)
		r.form = []string{"to=-1"}
		return r
	},
	"discovery.read":                  neighbour,
	"discoveries.clear_by_mac_and_ip": neighbour,
	"ip_addresses.reserve":            plain("subnet=cidr:10.1.0.0/16"),
	"ip_addresses.release": func(w *walker, t *testing.T) recipe {
		return recipe{form: []string{"ip=" + w.made(t, "ip", "ipaddresses/?op=reserve", "subnet=cidr:10.1.0.0/16")}}
	},
	"interface.set_default_gateway": gateway,
	"interface.unlink_subnet":       gateway,
	"subnets.create":                plain("cidr=10.79.0.0/24"),
	"vlans.create":                  plain("vid=4001"),
	"fabric.delete":                 aFabric,
	"domain.delete":                 aDomain,
	"interfaces.create_bond": func(w *walker, t *testing.T) recipe {
		m := w.machine(t)
		return recipe{at: map[string]string{"system_id": m["system_id"]}, form: []string{"name=bond0", "parents=" + m["interface"]}}
	},
	"interfaces.create_bridge": func(w *walker, t *testing.T) recipe {
		m := w.machine(t)
		return recipe{at: map[string]string{"system_id": m["system_id"]}, form: []string{"name=br0", "parent=" + m["interface"]}}
	},
	"interfaces.create_vlan": func(w *walker, t *testing.T) recipe {
		m := w.machine(t)
		return recipe{at: map[string]string{"system_id": m["system_id"]}, form: []string{"parent=" + m["interface"], "vlan=" + w.thing(t, "fabrics/0/vlans/", "vid", "4002")}}
	},
	"interface.link_subnet": plain("mode=LINK_UP"),
	"discoveries.clear":     plain("all=true"),
	"discoveries.scan":      plain("force=true"),
	"dhcp_snippet.read":     aSnippet,
	"dhcp_snippet.update":   with(aSnippet, "description=d"),
	"dhcp_snippet.delete":   aSnippet,
	"dhcp_snippets.create":  plain("name=UNIQUE", "value=x"),
	// Images
	"boot_resource_file_upload.upload": func(w *walker, t *testing.T) recipe {
		_, uri := announced(w, t, "hello")
		return recipe{at: uri, raw: "hello"}
	},
	"boot_resource.read":   announcedRecipe,
	"boot_resource.delete": announcedRecipe,
	"boot_resources.create": func(w *walker, t *testing.T) recipe {
		return recipe{form: announce(w.unique("i"), w.unique("content"))}
	},
	"boot_source.delete":            aSource,
	"boot_sources.create":           plain("url=http://x.example/UNIQUE", "keyring_filename=/k.gpg"),
	"boot_source_selection.read":    selection,
	"boot_source_selection.update":  with(selection, "release=jammy"),
	"boot_source_selection.delete":  selection,
	"boot_source_selections.list":   selection,
	"boot_source_selections.create": with(selection, "os=ubuntu", "release=UNIQUE"),
	// People
	"account.delete_token":      with(ownToken),
	"account.update_token_name": with(ownToken, "name=x"),
	"file.read":                 ownFile,
	"file.delete":               ownFile,
	"files.create": func(w *walker, _ *testing.T) recipe {
		return recipe{form: []string{"filename=" + w.unique("f")}, files: []string{"file=a=x"}}
	},
	"files.delete":              ownFile,
	"files.get":                 ownFile,
	"files.get_by_key":          fileByKey,
	"oidc_provider.read":        cannot(404),
	"oidc_provider.update":      cannot(404),
	"oidc_provider.delete":      cannot(404),
	"oidc_providers.create":     cannot(501),
	"oidc_providers.get_active": cannot(404),
	"ssh_key.delete":            ownSSHKey,
	"ssh_keys.create":           func(_ *walker, t *testing.T) recipe { return recipe{form: []string{"key=" + publicKey(t)}} },
	"ssh_keys.import":           plain("keysource=gh:somebody"),
	"ssl_key.read":              ownSSLKey,
	"ssl_key.delete":            ownSSLKey,
	"ssl_keys.create": func(_ *walker, t *testing.T) recipe {
		cert, _ := certificate(t)
		return recipe{form: []string{"key=" + cert}}
	},
	"user_group.delete":             aGroup,
	"user_group.add_entitlement":    with(aGroup, "resource_type=maas", "resource_id=0", "entitlement=can_edit_machines"),
	"user_group.remove_entitlement": with(aGroup, "resource_type=maas", "resource_id=0", "entitlement=can_edit_machines"),
	"user_group.add_member":         with(aGroup, "username=user"),
	"user_group.remove_member": func(w *walker, t *testing.T) recipe {
		r := aGroup(w, t)
		callAs(t, w.e, w.e.Admin).post("groups/"+r.at["id"]+"/?op=add_member", "username=user").code(200)
		r.form = []string{"username=user"}
		return r
	},
	"user.read":    func(*walker, *testing.T) recipe { return recipe{at: map[string]string{"username": "user"}} },
	"users.create": plain("username=UNIQUE", "email=UNIQUE@example.com", "password=secret-123", "is_superuser=0"),
	// The site
	"commissioning_script.read": ownScript,
	"commissioning_script.update": func(w *walker, t *testing.T) recipe {
		r := ownScript(w, t)
		r.form, r.files = nil, []string{"content=c=#!/bin/sh\nexit 2\n"}
		return r
	},
	"commissioning_script.delete": ownScript,
	"commissioning_scripts.create": func(w *walker, _ *testing.T) recipe {
		return recipe{form: []string{"name=" + w.unique("c")}, files: []string{"content=c=#!/bin/sh\n"}}
	},
	"license_key.read":          licence,
	"license_key.update":        with(licence, "license_key=aaaaa-bbbbb-ccccc-ddddd-eeeee"),
	"license_keys.create":       plain("osystem=windows", "distro_series=win2012r2", "license_key=aaaaa-bbbbb-ccccc-ddddd-eeeee"),
	"node_script.read":          ownScript,
	"node_script.update":        ownScript,
	"node_script.delete":        ownScript,
	"node_script.add_tag":       ownScript,
	"node_script.download":      func(w *walker, t *testing.T) recipe { r := ownScript(w, t); r.form = nil; return r },
	"node_script.remove_tag":    ownScript,
	"node_script.revert":        ownScript,
	"node_scripts.create":       withFile("UNIQUE=x.sh=#!/bin/sh\n"),
	"notification.read":         aNote,
	"notification.update":       with(aNote, "message=m"),
	"notification.delete":       aNote,
	"notification.dismiss":      aNote,
	"notifications.create":      plain("message=m", "admins=true"),
	"package_repository.delete": aRepository,
	"resource_pool.delete":      aPool,
	"tag.read":                  aTag,
	"tag.update":                with(aTag, "comment=c"),
	"tag.delete":                aTag,
	"tag.devices":               aTag,
	"tag.machines":              aTag,
	"tag.nodes":                 aTag,
	"tag.rack_controllers":      aTag,
	"tag.rebuild":               aTag,
	"tag.region_controllers":    aTag,
	"tag.update_nodes":          aTag,
	"zone.delete":               aZone,
	"maas.set_config":           plain("name=maas_name", "value=x"),
	"network.connect_macs":      cannot(410),
	"network.disconnect_macs":   cannot(410),
}

func deployRecipe(w *walker, t *testing.T) recipe {
	x := &world{Env: w.e, t: t, count: 100}
	x.admin = callAs(t, w.e, w.e.Admin)
	if !strings.Contains(x.admin.get("boot-resources/").Text(), `"ubuntu/noble"`) { // of another recipe
		x.image("ubuntu/noble", "amd64/ga-24.04")
	}
	w.n++
	x.count += w.n // another machine each time
	n := x.deployableOn(fmt.Sprint(w.subnets[0]), storage.StatusReady)
	return recipe{at: map[string]string{"system_id": n.SystemID}}
}

// installing is a machine that is being deployed.
func installing(w *walker, t *testing.T) recipe {
	r := deployRecipe(w, t)
	callAs(t, w.e, w.e.Admin).post("machines/"+r.at["system_id"]+"/?op=deploy", "distro_series=noble").code(200)
	return r
}

func raid(w *walker, t *testing.T) recipe {
	m := w.machine(t)
	id := w.made(t, "id", "nodes/"+m["system_id"]+"/raids/", "level=raid-1", "block_devices="+w.disk(t, m["system_id"]), "block_devices="+w.disk(t, m["system_id"]))
	return recipe{at: map[string]string{"system_id": m["system_id"], "id": id}}
}

func reservation(w *walker, t *testing.T) recipe {
	w.n++
	return recipe{at: map[string]string{"id": w.thing(t, "reservedips/", "ip", "10.1.200."+strconv.Itoa(w.n%250+1), "mac_address", fmt.Sprintf("52:54:00:05:%02x:%02x", w.n>>8, w.n&255))}}
}

func selection(w *walker, t *testing.T) recipe {
	source := aSource(w, t).at["id"]
	return recipe{at: map[string]string{"boot_source_id": source, "id": w.made(t, "id", "boot-sources/"+source+"/selections/", "os=ubuntu", "release=noble")}}
}

func announced(w *walker, t *testing.T, content string) (id string, at map[string]string) {
	r := callAs(t, w.e, w.e.Admin).post("boot-resources/", announce(w.unique("i"), content)...).code(201)
	id = r.str("id")
	uri := uploadURI(r)
	var file string
	for i := len(uri) - 2; i >= 0 && uri[i] != '/'; i-- {
		file = string(uri[i]) + file
	}
	return id, map[string]string{"resource_id": id, "id": file}
}

func announcedRecipe(w *walker, t *testing.T) recipe {
	id, _ := announced(w, t, w.unique("content"))
	return recipe{at: map[string]string{"id": id}}
}

func ownToken(w *walker, t *testing.T) recipe {
	key := w.made(t, "token_key", "account/?op=create_authorisation_token", "name=n")
	return recipe{form: []string{"token_key=" + key, "token=" + key}}
}

func fileByKey(w *walker, t *testing.T) recipe {
	r := ownFile(w, t)
	uri := callAs(t, w.e, w.e.Admin).get("files/" + r.at["filename"] + "/").str("anon_resource_uri")
	return recipe{form: []string{"key=" + uri[len(uri)-36:]}}
}

func ownSSHKey(w *walker, t *testing.T) recipe {
	return recipe{at: map[string]string{"id": w.made(t, "id", "account/prefs/sshkeys/", "key="+publicKey(t))}}
}

func ownSSLKey(w *walker, t *testing.T) recipe {
	cert, _ := certificate(t)
	return recipe{at: map[string]string{"id": w.made(t, "id", "account/prefs/sslkeys/", "key="+cert)}}
}

func licence(w *walker, t *testing.T) recipe {
	series := w.unique("win")
	w.made(t, "license_key", "license-keys/", "osystem=windows", "distro_series="+series, "license_key=aaaaa-bbbbb-ccccc-ddddd-eeeee")
	return recipe{at: map[string]string{"osystem": "windows", "distro_series": series}}
}

func withScript(param string) func(w *walker, t *testing.T) recipe {
	return func(w *walker, t *testing.T) recipe {
		name := w.unique("t")
		callAs(t, w.e, w.e.Admin).upload("scripts/", []string{"name=" + name, "type=testing"}, "script=s=#!/bin/sh\n").code(200)
		return recipe{form: []string{param + "=" + name}}
	}
}

func mounted(w *walker, t *testing.T) recipe {
	id := w.machine(t)["system_id"]
	callAs(t, w.e, w.e.Admin).post("machines/"+id+"/?op=mount_special", "fstype=tmpfs", "mount_point=/mnt").code(200)
	return recipe{at: map[string]string{"system_id": id}, form: []string{"mount_point=/mnt"}}
}

func (w *walker) write(t *testing.T, fn func(tx *storage.Tx) error) {
	t.Helper()
	if err := w.e.DB.Write(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func hardware(w *walker, t *testing.T) recipe {
	m := w.machine(t)
	w.write(t, func(tx *storage.Tx) error {
		n, err := tx.Node(m["system_id"])
		if err != nil {
			return err
		}
		return tx.SaveNodeDevice(&storage.HardwareDevice{NodeID: n.ID, Bus: 1, HardwareType: 1, VendorID: "8086", ProductID: "0001"})
	})
	return recipe{at: map[string]string{"system_id": m["system_id"], "id": callAs(t, w.e, w.e.Admin).get("nodes/" + m["system_id"] + "/devices/").str("0.id")}}
}

func resultSet(w *walker, t *testing.T) recipe {
	m := w.machine(t)
	var id int64
	w.write(t, func(tx *storage.Tx) error {
		n, err := tx.Node(m["system_id"])
		if err != nil {
			return err
		}
		set := storage.ScriptSet{NodeID: n.ID, Type: storage.SetTesting}
		err = tx.AddScriptSet(&set, []storage.ScriptResult{{Name: "one", Status: storage.ScriptPassed}})
		id = set.ID
		return err
	})
	return recipe{at: map[string]string{"system_id": m["system_id"], "id": fmt.Sprint(id)}}
}

func ownDevice(w *walker, t *testing.T) recipe {
	return recipe{at: map[string]string{"system_id": w.system(t, storage.NodeDevice, &w.e.Admin.User.ID)}}
}

func cacheSet(w *walker, t *testing.T) recipe {
	id := w.machine(t)["system_id"]
	return recipe{at: map[string]string{"system_id": id, "id": w.made(t, "id", "nodes/"+id+"/bcache-cache-sets/", "cache_device="+w.disk(t, id))}}
}

func neighbour(w *walker, t *testing.T) recipe {
	w.n++
	ip, mac, vlan := fmt.Sprintf("10.1.201.%d", w.n%250+1), fmt.Sprintf("52:54:00:07:%02x:%02x", w.n>>8, w.n&255), storage.DefaultVLANID
	w.write(t, func(tx *storage.Tx) error {
		return tx.PutNeighbour(storage.Neighbour{IP: netip.MustParseAddr(ip), MAC: mac, VLANID: &vlan})
	})
	return recipe{at: map[string]string{"discovery_id": base64.StdEncoding.EncodeToString([]byte(ip + "," + mac))}, form: []string{"ip=" + ip, "mac=" + mac}}
}

func gateway(w *walker, t *testing.T) recipe {
	m := w.machine(t)
	w.n++
	cidr := fmt.Sprintf("10.66.%d.0/24", w.n%250)
	subnet := w.thing(t, "subnets/", "cidr", cidr, "gateway_ip", fmt.Sprintf("10.66.%d.1", w.n%250))
	link := w.made(t, "links.0.id", "nodes/"+m["system_id"]+"/interfaces/"+m["interface"]+"/?op=link_subnet", "mode=STATIC", "subnet="+subnet)
	return recipe{at: map[string]string{"system_id": m["system_id"], "id": m["interface"]}, form: []string{"id=" + link, "link_id=" + link}}
}
