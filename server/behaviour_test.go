package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

// A behaviour is one telling thing that MAAS's API does, and what Ingot does at the same place. Each has a number that stays, so that
// notes and issues can name it.
type behaviour struct {
	n       int
	title   string
	verdict verdict
	run     func(w *world)
}

// verdict says how Ingot's behaviour stands to MAAS's.
type verdict string

const (
	same    verdict = "same"    // as MAAS
	differs verdict = "differs" // on purpose: a row of openapi/divergences.md says how and why
)

// behaviours are all of them; each file of this test adds its part.
var behaviours = slices.Concat(transportBehaviours, listBehaviours, enlistBehaviours, allocateBehaviours, machineBehaviours, storageBehaviours,
	interfaceBehaviours, networkBehaviours, dnsBehaviours, siteBehaviours, scriptBehaviours, otherBehaviours)

const behaviourCount = 204

// TestBehaviours plays every case, each on a server of its own.
func TestBehaviours(t *testing.T) {
	for _, b := range behaviours {
		t.Run(fmt.Sprintf("%03d %s", b.n, b.title), func(t *testing.T) { b.run(newWorld(t)) })
	}
}

// TestBehaviourVerdicts holds the table to its numbering and to the list of divergences, both ways.
func TestBehaviourVerdicts(t *testing.T) {
	file, err := os.ReadFile("../openapi/divergences.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(file), "## Behaviours\n")
	if !ok {
		t.Fatal("openapi/divergences.md has no section Behaviours")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	listed := map[int]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \|([^|\n]+)\|([^|\n]+)\|([^|\n]+)\|$`).FindAllStringSubmatch(section, -1) {
		n, _ := strconv.Atoi(row[1])
		if listed[n] {
			t.Errorf("openapi/divergences.md lists behaviour %d twice", n)
		}
		listed[n] = true
		for i, what := range []string{"what MAAS does", "what Ingot does", "why"} {
			if strings.TrimSpace(row[i+2]) == "" {
				t.Errorf("openapi/divergences.md, behaviour %d: %s is missing", n, what)
			}
		}
	}
	if rows := strings.Count(section, "\n| ") - 2; rows != len(listed) {
		t.Errorf("openapi/divergences.md: %d of %d rows of Behaviours are well formed", len(listed), rows)
	}
	seen := map[int]bool{}
	for _, b := range behaviours {
		if seen[b.n] || b.n < 1 || b.n > behaviourCount {
			t.Errorf("behaviour %d comes twice, or is none", b.n)
		}
		seen[b.n] = true
		if want := b.verdict == differs; listed[b.n] != want {
			t.Errorf("behaviour %d %q has the verdict %q, and openapi/divergences.md lists it: %v", b.n, b.title, b.verdict, listed[b.n])
		}
		delete(listed, b.n)
	}
	for n := range listed {
		t.Errorf("openapi/divergences.md lists behaviour %d, which no case shows", n)
	}
	if len(seen) != behaviourCount {
		t.Errorf("%d behaviours, want %d", len(seen), behaviourCount)
	}
}

// world is a server with people to call it.
type world struct {
	*servertest.Env
	t                          testing.TB
	admin, user, other, nobody who
	count                      int // of machines made
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, Env: servertest.New(t, withDrivers)}
	w.admin, w.user, w.nobody = who{w, w.Admin}, who{w, w.User}, who{w, w.Anon}
	w.other = who{w, w.AddUser(t, "other", false)}
	return w
}

// who calls the server; forms are given as "key=value".
type who struct {
	w *world
	*servertest.Caller
}

func (x who) reply(method, path string, form []string, a servertest.Answer) *reply {
	return &reply{t: x.w.t, Answer: a, what: fmt.Sprintf("%s: %s %s %q", x.User.Username, method, path, form)}
}

func fields(form []string) []string {
	var pairs []string
	for _, f := range form {
		k, v, _ := strings.Cut(f, "=")
		pairs = append(pairs, k, v)
	}
	return pairs
}

func (x who) get(path string) *reply {
	x.w.t.Helper()
	return x.reply("GET", path, nil, x.Get(path))
}
func (x who) delete(path string) *reply {
	x.w.t.Helper()
	return x.reply("DELETE", path, nil, x.Delete(path))
}
func (x who) post(path string, form ...string) *reply {
	x.w.t.Helper()
	return x.reply("POST", path, form, x.Post(path, fields(form)...))
}
func (x who) put(path string, form ...string) *reply {
	x.w.t.Helper()
	return x.reply("PUT", path, form, x.Put(path, fields(form)...))
}

// raw sends a body as it is.
func (x who) raw(method, path, contentType, body string) *reply {
	x.w.t.Helper()
	return x.reply(method, path, nil, x.Send(method, path, contentType, strings.NewReader(body)))
}

// upload posts a multipart form with files: "field=file name=content".
func (x who) upload(path string, form []string, files ...string) *reply {
	x.w.t.Helper()
	kind, body := multipartOf(form, files)
	return x.reply("POST", path, form, x.Send(http.MethodPost, path, kind, body))
}

func multipartOf(form, files []string) (contentType string, body io.Reader) {
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	for _, f := range form {
		k, v, _ := strings.Cut(f, "=")
		_ = m.WriteField(k, v)
	}
	for _, f := range files {
		part := strings.SplitN(f, "=", 3)
		p, _ := m.CreateFormFile(part[0], part[1])
		_, _ = p.Write([]byte(part[2]))
	}
	_ = m.Close()
	return m.FormDataContentType(), &b
}

// reply is an answer that a case holds against what it should be.
type reply struct {
	servertest.Answer
	t    testing.TB
	what string
}

func (r *reply) squeezed() string { return strings.Join(strings.Fields(r.Text()), " ") }

// code wants a status.
func (r *reply) code(status int) *reply {
	r.t.Helper()
	if r.Status != status {
		r.t.Fatalf("%s\n got %d %s\nwant %d", r.what, r.Status, r.squeezed(), status)
	}
	return r
}

// is wants a status and the whole body.
func (r *reply) is(status int, text string) *reply {
	r.t.Helper()
	if r.code(status); r.Text() != text {
		r.t.Errorf("%s\n got %d %q\nwant %q", r.what, r.Status, r.Text(), text)
	}
	return r
}

// has wants a status and parts of the body, whose white space is squeezed.
func (r *reply) has(status int, parts ...string) *reply {
	r.t.Helper()
	r.code(status)
	for _, p := range parts {
		if !strings.Contains(r.squeezed(), p) {
			r.t.Errorf("%s\n got %d %s\nwant %q in it", r.what, r.Status, r.squeezed(), p)
		}
	}
	return r
}

func (r *reply) lacks(parts ...string) *reply {
	r.t.Helper()
	for _, p := range parts {
		if strings.Contains(r.squeezed(), p) {
			r.t.Errorf("%s\n got %d %s\nwhich has %q in it", r.what, r.Status, r.squeezed(), p)
		}
	}
	return r
}

// field wants a 400 whose messages for a field are these.
func (r *reply) field(name string, messages ...string) *reply {
	r.t.Helper()
	r.code(400)
	var got map[string][]string
	if json.Unmarshal(r.Body, &got) != nil || !slices.Equal(got[name], messages) {
		r.t.Errorf("%s\n got %s\nwant %q: %q", r.what, r.squeezed(), name, messages)
	}
	return r
}

// keys wants a 400 with messages for exactly these fields.
func (r *reply) keys(names ...string) *reply {
	r.t.Helper()
	r.code(400)
	var got map[string][]string
	err := json.Unmarshal(r.Body, &got)
	slices.Sort(names)
	if k := sortedKeys(got); err != nil || !slices.Equal(k, names) {
		r.t.Errorf("%s\n got %s\nwant messages for %q", r.what, r.squeezed(), names)
	}
	return r
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// at is the value at a path such as "zone.name" or "0.links.1.id"; nil when there is none.
func (r *reply) at(path string) any {
	r.t.Helper()
	var v any
	if err := json.Unmarshal(r.Body, &v); err != nil {
		r.t.Fatalf("%s\n got %d %s\nwhich is no JSON", r.what, r.Status, r.squeezed())
	}
	if path == "" {
		return v
	}
	for p := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[p]
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

// eq wants a success whose value at a path is this one; numbers may be ints.
func (r *reply) eq(path string, want any) *reply {
	r.t.Helper()
	if r.Status > 299 {
		r.t.Fatalf("%s\n got %d %s", r.what, r.Status, r.squeezed())
	}
	b, _ := json.Marshal(want)
	var plain any
	_ = json.Unmarshal(b, &plain)
	if got := r.at(path); !reflect.DeepEqual(got, plain) {
		r.t.Errorf("%s\n got %v at %q\nwant %v\nin %s", r.what, got, path, plain, r.squeezed())
	}
	return r
}

// str is the value at a path as text, for the next call's path.
func (r *reply) str(path string) string {
	r.t.Helper()
	switch v := r.at(path).(type) {
	case string:
		return v
	case float64:
		return strconv.FormatInt(int64(v), 10)
	default:
		r.t.Fatalf("%s\n got %d %s\nwhich has nothing at %q", r.what, r.Status, r.squeezed(), path)
		return ""
	}
}

// all are the values of one key of a list of objects.
func (r *reply) all(key string) []string {
	r.t.Helper()
	list, ok := r.code(200).at("").([]any)
	if !ok {
		r.t.Fatalf("%s\n got %s\nwhich is no list", r.what, r.squeezed())
	}
	out := []string{}
	for _, x := range list {
		m, _ := x.(map[string]any)
		out = append(out, fmt.Sprint(m[key]))
	}
	return out
}

// list wants a list of objects with these values of a key, in this order.
func (r *reply) list(key string, want ...string) *reply {
	r.t.Helper()
	if got := r.all(key); !slices.Equal(got, append([]string{}, want...)) {
		r.t.Errorf("%s\n got %q of %s\nwant %q", r.what, got, key, want)
	}
	return r
}

func (r *reply) header(name, part string) *reply {
	r.t.Helper()
	if v := strings.Join(r.Header.Values(name), ", "); !strings.Contains(v, part) || v == "" {
		r.t.Errorf("%s\n header %s is %q\nwant %q", r.what, name, v, part)
	}
	return r
}

// Things to call about -----------------------------------------------------------------------------------------------------

func (w *world) write(fn func(tx *storage.Tx) error) {
	w.t.Helper()
	if err := w.DB.Write(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) setting(name, value string) {
	w.t.Helper()
	w.admin.post("maas/?op=set_config", "name="+name, "value="+value).is(200, "OK")
}

// node is a machine, device or controller of the store.
type node struct {
	storage.Node
	nic  storage.Interface
	disk storage.BlockDevice
	w    *world
}

func (n *node) path(op string) string {
	kind := map[int64]string{storage.NodeMachine: "machines", storage.NodeDevice: "devices", storage.NodeRack: "rackcontrollers", storage.NodeRegion: "regioncontrollers"}[n.NodeType]
	if op != "" {
		op = "?op=" + op
	}
	return kind + "/" + n.SystemID + "/" + op
}

// below is a path below nodes/ID/.
func (n *node) below(rest string, args ...any) string {
	return "nodes/" + n.SystemID + "/" + fmt.Sprintf(rest, args...)
}

func (n *node) uri() string { return "/MAAS/api/2.0/" + n.path("") }

// node puts a node with one interface and, if it is a machine, one disk of 100 GB into the store.
func (w *world) node(kind int64, status storage.NodeStatus, change ...func(*storage.Node)) *node {
	w.t.Helper()
	w.count++
	n := &node{w: w}
	pool, vlan := storage.DefaultPoolID, storage.DefaultVLANID
	n.Node = storage.Node{SystemID: fmt.Sprintf("node%02d", w.count), NodeType: kind, Hostname: fmt.Sprintf("host%d", w.count), DomainID: storage.DefaultDomainID,
		ZoneID: storage.DefaultZoneID, Status: status, Architecture: "amd64/generic", PowerType: "manual", PowerState: "off", CPUCount: 4, Memory: 8192, Netboot: true}
	if kind == storage.NodeMachine {
		n.PoolID = &pool
	} else {
		n.PowerType, n.Status = "", storage.StatusNew
	}
	for _, f := range change {
		f(&n.Node)
	}
	w.write(func(tx *storage.Tx) error {
		if err := tx.InsertNode(&n.Node); err != nil {
			return err
		}
		n.nic = storage.Interface{NodeID: n.ID, Name: "eth0", MACAddress: fmt.Sprintf("52:54:00:00:00:%02x", w.count), VLANID: &vlan, Enabled: true, LinkConnected: true}
		if err := tx.InsertInterface(&n.nic); err != nil || kind != storage.NodeMachine {
			return err
		}
		n.BootInterfaceID = &n.nic.ID
		return nil
	})
	if kind == storage.NodeMachine {
		n.disk = n.addDisk("sda", 100e9)
		n.BootDiskID = &n.disk.ID
		n.update(func(s *storage.Node) { s.BootInterfaceID, s.BootDiskID = &n.nic.ID, &n.disk.ID })
	}
	return n
}

func (w *world) machine(status storage.NodeStatus, change ...func(*storage.Node)) *node {
	w.t.Helper()
	return w.node(storage.NodeMachine, status, change...)
}

func ownedBy(x who) func(*storage.Node) {
	return func(n *storage.Node) { n.OwnerID = &x.User.ID }
}

func locked(n *storage.Node) { n.Locked = true }

// update changes a node behind the server's back.
func (n *node) update(change func(*storage.Node)) {
	n.w.t.Helper()
	n.w.write(func(tx *storage.Tx) error {
		s, err := tx.LockNode(n.ID)
		if err != nil {
			return err
		}
		from, owner := s.Status, s.OwnerID
		change(&s)
		n.Node = s
		return tx.UpdateNodeFrom(&s, from, owner)
	})
}

func (n *node) setStatus(s storage.NodeStatus) { n.update(func(x *storage.Node) { x.Status = s }) }

func (n *node) addDisk(name string, size int64, tags ...string) storage.BlockDevice {
	n.w.t.Helper()
	model, serial := "Disk", n.SystemID+name
	d := storage.BlockDevice{NodeID: n.ID, Name: name, Type: "physical", Model: &model, Serial: &serial, Size: size, BlockSize: 512, Tags: tags}
	n.w.write(func(tx *storage.Tx) error { return tx.InsertBlockDevice(&d) })
	return d
}

func (n *node) addNIC(name, mac string) storage.Interface {
	n.w.t.Helper()
	vlan := storage.DefaultVLANID
	i := storage.Interface{NodeID: n.ID, Name: name, MACAddress: mac, VLANID: &vlan, Enabled: true, LinkConnected: true}
	n.w.write(func(tx *storage.Tx) error { return tx.InsertInterface(&i) })
	return i
}

// link gives the first interface an address: a fixed one, or none yet when ip is "".
func (n *node) link(subnet string, ip string) {
	n.w.t.Helper()
	id, err := strconv.ParseInt(subnet, 10, 64)
	if err != nil {
		n.w.t.Fatal(err)
	}
	a := storage.IPAddress{InterfaceID: &n.nic.ID, SubnetID: &id, AllocType: storage.AllocAuto}
	if ip != "" {
		a.AllocType, a.IP = storage.AllocSticky, netip.MustParseAddr(ip)
	}
	n.w.write(func(tx *storage.Tx) error { return tx.InsertIPAddress(&a) })
}

// subnet makes a subnet on the default VLAN, or on another, and answers its id.
func (w *world) subnet(cidr string, form ...string) string {
	w.t.Helper()
	return w.admin.post("subnets/", append([]string{"cidr=" + cidr}, form...)...).code(200).str("id")
}

// vlan makes a VLAN in the default fabric and answers its id.
func (w *world) vlan(vid int, form ...string) string {
	w.t.Helper()
	return w.admin.post("fabrics/0/vlans/", append([]string{fmt.Sprintf("vid=%d", vid)}, form...)...).code(200).str("id")
}

// image puts a deployable image into the store.
func (w *world) image(name, arch string) storage.BootResource {
	w.t.Helper()
	r := storage.BootResource{Rtype: storage.ResourceSynced, Name: name, Architecture: arch}
	if strings.HasPrefix(name, "custom/") {
		r.Rtype = storage.ResourceUploaded
	}
	w.write(func(tx *storage.Tx) error {
		if err := tx.InsertBootResource(&r); err != nil {
			return err
		}
		set := storage.BootResourceSet{ResourceID: r.ID, Version: "20260101", Label: "stable"}
		if err := tx.InsertBootResourceSet(&set); err != nil {
			return err
		}
		for i, kind := range []string{"boot-kernel", "boot-initrd", "squashfs"} {
			f := storage.BootResourceFile{SetID: set.ID, Filename: kind, Filetype: kind, SHA256: strings.Repeat(strconv.Itoa(i), 64), Size: 5, Uploaded: 5, Complete: true}
			if err := tx.InsertBootResourceFile(&f); err != nil {
				return err
			}
		}
		return nil
	})
	return r
}

// deployable is a machine that can be deployed: with a link, a root file system and an image for it.
func (w *world) deployable(status storage.NodeStatus, change ...func(*storage.Node)) *node {
	w.t.Helper()
	subnets := w.admin.get("subnets/").all("id")
	if len(subnets) == 0 {
		subnets = []string{w.subnet("10.0.0.0/16", "gateway_ip=10.0.0.1")}
		w.image("ubuntu/noble", "amd64/ga-24.04")
		w.image("ubuntu/jammy", "amd64/ga-22.04")
		w.image("custom/web", "amd64/generic")
	}
	return w.deployableOn(subnets[0], status, change...)
}

func (w *world) deployableOn(subnet string, status storage.NodeStatus, change ...func(*storage.Node)) *node {
	w.t.Helper()
	n := w.machine(status, change...)
	n.link(subnet, "")
	w.write(func(tx *storage.Tx) error {
		n.disk.PartitionTable = "GPT"
		if err := tx.UpdateBlockDevice(&n.disk); err != nil {
			return err
		}
		p := storage.Partition{BlockDeviceID: n.disk.ID, Number: 2, UUID: fmt.Sprintf("00000000-0000-4000-8000-%012d", n.ID), Size: 90e9, Bootable: true}
		if err := tx.InsertPartition(&p); err != nil {
			return err
		}
		root, label := "/", "root"
		fs := storage.Filesystem{NodeID: n.ID, PartitionID: &p.ID, Fstype: "ext4", MountPoint: &root, Label: &label}
		if err := tx.InsertFilesystem(&fs); err != nil {
			return err
		}
		if n.OwnerID == nil {
			return nil
		}
		return tx.AcquireFilesystems(n.ID)
	})
	return n
}

// machineOf reads a machine as an administrator.
func (n *node) read() api.Machine {
	n.w.t.Helper()
	var m api.Machine
	n.w.admin.get(n.path("")).code(200).Into(n.w.t, &m)
	return m
}
