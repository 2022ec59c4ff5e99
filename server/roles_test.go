package server_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

// roleRow is what becomes of an operation, by who calls it: 401, 403, 400 or 410, or "yes": it is let through to its own checks, so that
// anything but 401 and 403 may follow.
type roleRow struct{ anonymous, user, admin, node string }

// parseRoles reads the table of roles_table_test.go.
func parseRoles(t *testing.T) map[string]roleRow {
	t.Helper()
	rows := map[string]roleRow{}
	for line := range strings.Lines(roleTable) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		if len(f) != 5 {
			t.Fatalf("the row %q has %d columns", line, len(f))
		}
		if _, twice := rows[f[0]]; twice {
			t.Errorf("%s has two rows", f[0])
		}
		rows[f[0]] = roleRow{f[1], f[2], f[3], f[4]}
	}
	return rows
}

// Every operation of the documents, called by nobody, by a plain user, by an administrator and with the credentials of a machine. The
// machine of the paths has no owner and is Ready; the device, keys and ranges belong to somebody else.
func TestRoles(t *testing.T) {
	e := servertest.New(t)
	rows := parseRoles(t)
	w := newRoleWorld(t, e)
	seen := map[string]bool{}
	for _, h := range api.Handlers {
		for _, op := range h.Ops {
			row, ok := rows[op.ID]
			if seen[op.ID] = true; !ok {
				t.Errorf("%s has no row in the table of roles", op.ID)
				continue
			}
			for _, c := range []struct {
				who    string
				caller *servertest.Caller
				want   string
			}{{"nobody", e.Anon, row.anonymous}, {"a machine", w.node, row.node}, {"a plain user", e.User, row.user}, {"an administrator", e.Admin, row.admin}} {
				if op.ID == "ingot_changes.read" && c.want == "yes" {
					continue // waits for a change
				}
				a := w.call(t, c.caller, op)
				denied := a.Status == 401 || a.Status == 403
				if c.want == "yes" && !denied || c.want == strconv.Itoa(a.Status) || a.Status == http.StatusNotImplemented && c.want != "401" {
					continue // TestUnbuiltList holds what is not built
				}
				t.Errorf("%s as %s: %d %.150s; want %s", op.ID, c.who, a.Status, a.Text(), c.want)
			}
		}
	}
	for id := range rows {
		if !seen[id] {
			t.Errorf("the table of roles has a row for %s, which no document has", id)
		}
	}
}

// roleWorld holds something of every kind for the operations to work on.
type roleWorld struct {
	e              *servertest.Env
	node           *servertest.Caller
	other          *servertest.Caller
	n              int // counts what was made
	subnets        [2]int64
	sshKey, sslKey int64
}

func newRoleWorld(t *testing.T, e *servertest.Env) *roleWorld {
	t.Helper()
	w := &roleWorld{e: e, other: e.AddUser(t, "other", false)}
	must := func(a servertest.Answer) map[string]any {
		t.Helper()
		if a.Status >= 300 {
			t.Fatalf("%d %s", a.Status, a.Text())
		}
		var m map[string]any
		a.Into(t, &m)
		return m
	}
	id := func(m map[string]any) int64 { return int64(m["id"].(float64)) }
	w.subnets[0] = id(must(e.Admin.Post("subnets/", "cidr", "10.1.0.0/16")))
	w.subnets[1] = id(must(e.Admin.Post("subnets/", "cidr", "10.2.0.0/24")))
	w.sshKey = id(must(w.other.Post("account/prefs/sshkeys/", "key", publicKey(t))))
	cert, _ := certificate(t)
	w.sslKey = id(must(w.other.Post("account/prefs/sslkeys/", "key", cert)))
	err := e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		n := storage.Node{SystemID: "talker", Hostname: "talker", DomainID: storage.DefaultDomainID, ZoneID: storage.DefaultZoneID, Status: storage.StatusDeployed}
		if err := tx.InsertNode(&n); err != nil {
			return err
		}
		return tx.InsertNodeToken(&storage.NodeToken{NodeID: n.ID, ConsumerKey: "nodeconsumer", TokenKey: "nodetoken", TokenSecret: "nodesecret", Created: time.Now()})
	})
	if err != nil {
		t.Fatal(err)
	}
	node := *e.User
	node.Key, node.User = "nodeconsumer:nodetoken:nodesecret", storage.User{}
	w.node = &node
	return w
}

// machine makes a Ready machine without an owner, with a disk, a partition and something of each kind built on disks.
func (w *roleWorld) machine(t *testing.T) map[string]string {
	t.Helper()
	w.n++
	id := fmt.Sprintf("m%05d", w.n)
	ids := map[string]string{"system_id": id}
	err := w.e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		pool, vlan := storage.DefaultPoolID, storage.DefaultVLANID
		n := storage.Node{SystemID: id, Hostname: id, DomainID: storage.DefaultDomainID, ZoneID: storage.DefaultZoneID, PoolID: &pool,
			Status: storage.StatusReady, Architecture: "amd64/generic", PowerType: "manual", PowerState: "off"}
		if err := tx.InsertNode(&n); err != nil {
			return err
		}
		nic := storage.Interface{NodeID: n.ID, Name: "eth0", MACAddress: fmt.Sprintf("52:54:00:01:%02x:%02x", w.n>>8, w.n&255), VLANID: &vlan, Enabled: true}
		disk := storage.BlockDevice{NodeID: n.ID, Name: "sda", Type: "physical", Size: 100 << 30, BlockSize: 512, PartitionTable: "GPT"}
		cache := storage.CacheSet{NodeID: n.ID}
		steps := []func() error{
			func() error { return tx.InsertInterface(&nic) },
			func() error { return tx.InsertBlockDevice(&disk) },
			func() error {
				p := storage.Partition{BlockDeviceID: disk.ID, Number: 1, UUID: "u-" + id, Size: 10 << 30}
				err := tx.InsertPartition(&p)
				ids["partition"] = fmt.Sprint(p.ID)
				return err
			},
			func() error { return tx.InsertCacheSet(&cache) },
			func() error {
				return w.member(tx, n.ID, "cache", storage.Filesystem{Fstype: "bcache-cache", CacheSetID: &cache.ID})
			},
			func() error {
				for kind, of := range map[string][2]string{"raid": {"raid-1", "raid"}, "volume_group": {"lvm-vg", "lvm-pv"}, "bcache": {"bcache", "bcache-backing"},
					"vmfs_datastore": {"vmfs6", "vmfs6"}} {
					g := storage.StorageGroup{NodeID: n.ID, Type: of[0], Name: kind + "0", UUID: kind + id}
					if kind == "bcache" {
						g.CacheMode, g.CacheSetID = "writeback", &cache.ID
					}
					if err := tx.InsertStorageGroup(&g); err != nil {
						return err
					}
					ids[kind] = fmt.Sprint(g.ID)
					if err := w.member(tx, n.ID, kind, storage.Filesystem{Fstype: of[1], GroupID: &g.ID}); err != nil {
						return err
					}
				}
				return nil
			},
		}
		for _, f := range steps {
			if err := f(); err != nil {
				return err
			}
		}
		ids["interface"], ids["block_device"], ids["bcache_cache_set"] = fmt.Sprint(nic.ID), fmt.Sprint(disk.ID), fmt.Sprint(cache.ID)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// member makes a disk that is part of something.
func (w *roleWorld) member(tx *storage.Tx, nodeID int64, name string, fs storage.Filesystem) error {
	d := storage.BlockDevice{NodeID: nodeID, Name: name, Type: "physical", Size: 10 << 30, BlockSize: 512}
	if err := tx.InsertBlockDevice(&d); err != nil {
		return err
	}
	fs.NodeID, fs.BlockDeviceID = nodeID, &d.ID
	return tx.InsertFilesystem(&fs)
}

// system makes a device that belongs to somebody else, or a controller.
func (w *roleWorld) system(t *testing.T, nodeType int64, owner *int64) string {
	t.Helper()
	w.n++
	id := fmt.Sprintf("s%05d", w.n)
	err := w.e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		vlan := storage.DefaultVLANID
		n := storage.Node{SystemID: id, Hostname: id, NodeType: nodeType, OwnerID: owner, DomainID: storage.DefaultDomainID, ZoneID: storage.DefaultZoneID}
		if err := tx.InsertNode(&n); err != nil {
			return err
		}
		return tx.InsertInterface(&storage.Interface{NodeID: n.ID, Name: "eth0", MACAddress: fmt.Sprintf("52:54:00:03:%02x:%02x", w.n>>8, w.n&255), VLANID: &vlan})
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// thing makes an object by the API, as an administrator, and answers its id.
func (w *roleWorld) thing(t *testing.T, path string, pairs ...string) string {
	t.Helper()
	a := w.e.Admin.Post(path, pairs...)
	var made struct{ ID int64 }
	if a.Status != 200 {
		t.Fatalf("%s: %d %s", path, a.Status, a.Text())
	}
	a.Into(t, &made)
	return fmt.Sprint(made.ID)
}

// pathValues are what stands in the path of an operation.
func (w *roleWorld) pathValues(t *testing.T, op *api.Operation) map[string]string {
	t.Helper()
	w.n++
	kind, _, _ := strings.Cut(op.ID, ".")
	v := map[string]string{"id": "1", "name": "x", "filename": "f", "service_name": "dhcp", "file_id": "1", "resource_id": "1", "boot_source_id": "1", "fabric_id": "0",
		"vid": "0", "vlan_id": "5001", "username": "nobody", "osystem": "windows", "distro_series": "win2019", "discovery_id": "MTAuMC4wLjEsNTI6NTQ6MDA6MDA6MDA6MDE="}
	if strings.Contains(op.Path, "{system_id}") {
		ids := w.machine(t)
		v["system_id"], v["device_id"] = ids["system_id"], ids["block_device"]
		if x, ok := ids[kind]; ok {
			v["id"] = x
		}
	}
	switch kind {
	case "device":
		v["system_id"] = w.system(t, storage.NodeDevice, &w.other.User.ID)
	case "rack_controller":
		v["system_id"] = w.system(t, storage.NodeRack, nil)
	case "region_controller":
		v["system_id"] = w.system(t, storage.NodeRegion, nil)
	case "space":
		v["id"] = w.thing(t, "spaces/")
	case "dns_resource":
		v["id"] = w.thing(t, "dnsresources/", "fqdn", fmt.Sprintf("r%d.maas", w.n))
	case "dns_resource_record":
		v["id"] = w.thing(t, "dnsresourcerecords/", "fqdn", fmt.Sprintf("r%d.maas", w.n), "rrtype", "TXT", "rrdata", "x")
	case "ip_range":
		v["id"] = w.thing(t, "ipranges/", "type", "reserved", "start_ip", fmt.Sprintf("10.1.%d.9", w.n%250+1), "end_ip", fmt.Sprintf("10.1.%d.9", w.n%250+1))
	case "static_route":
		v["id"] = w.thing(t, "static-routes/", "source", fmt.Sprint(w.subnets[0]), "destination",
			w.thing(t, "subnets/", "cidr", fmt.Sprintf("10.9.%d.0/24", w.n%250)), "gateway_ip", "10.1.0.1")
	case "subnet":
		v["id"] = w.thing(t, "subnets/", "cidr", fmt.Sprintf("10.8.%d.0/24", w.n%250))
	case "vlan":
		vid := fmt.Sprint(w.n%4000 + 1)
		v["vlan_id"], v["vid"] = w.thing(t, "fabrics/0/vlans/", "vid", vid), vid
	case "ssh_key":
		v["id"] = fmt.Sprint(w.sshKey)
	case "ssl_key":
		v["id"] = fmt.Sprint(w.sslKey)
	case "domain", "fabric", "resource_pool":
		v["id"] = "0"
	case "zone":
		v["name"] = "default"
	}
	return v
}

// call calls an operation with what it needs and as little as that.
func (w *roleWorld) call(t *testing.T, who *servertest.Caller, op *api.Operation) servertest.Answer {
	t.Helper()
	path, form := op.Handler.Prefix+op.Path, url.Values{}
	values := w.pathValues(t, op)
	for _, p := range op.Params {
		switch {
		case p.In == api.Path:
			path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(values[p.Name]))
		case p.Required && p.In != api.Body:
			form.Set(p.Name, w.fill(t, op, p))
		}
	}
	if op.ID == "machines.accept" || op.ID == "machines.release" {
		form.Set("machines", w.machine(t)["system_id"])
	}
	query, body := url.Values{}, ""
	if op.Op != "" {
		query.Set("op", op.Op)
	}
	if op.Method == http.MethodGet || op.Method == http.MethodDelete {
		for k, v := range form {
			query[k] = v
		}
	} else {
		body = form.Encode()
	}
	return who.Send(op.Method, path+"?"+query.Encode(), "application/x-www-form-urlencoded", strings.NewReader(body))
}

func (w *roleWorld) fill(t *testing.T, op *api.Operation, p api.Param) string {
	t.Helper()
	w.n++
	switch p.Name {
	case "mac_address", "mac_addresses":
		return fmt.Sprintf("52:54:00:02:%02x:%02x", w.n>>8, w.n&255)
	case "zone":
		return "default"
	case "nodes", "source", "destinations":
		if strings.HasPrefix(op.ID, "static_routes") {
			return fmt.Sprint(w.subnets[0])
		}
		return w.machine(t)["system_id"]
	case "name":
		if strings.HasPrefix(op.ID, "maas.") {
			return "theme"
		}
	case "type":
		return "reserved"
	case "start_ip", "end_ip", "ip":
		return fmt.Sprintf("10.2.0.%d", w.n%250+1)
	case "url", "issuer_url", "redirect_uri":
		return "http://x.example"
	case "fstype":
		return "ext4"
	}
	if len(p.Choices) > 0 {
		return p.Choices[0]
	}
	return map[api.Kind]string{api.Int: "1", api.Float: "1", api.Bool: "true", api.Bool01: "0", api.DjBool: "true"}[p.Kind] + map[bool]string{true: "x"}[p.Kind == api.String]
}
