package server_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

// recipe is what an operation needs to do its work, beyond what a roleWorld fills in by itself.
type recipe struct {
	at     map[string]string // of the path
	form   []string          // "key=value"; of the query for GET and DELETE
	files  []string          // "field=name=content"
	raw    string            // the whole body
	by     *servertest.Caller
	status int // of an operation that cannot succeed, and says why with this
}

// TestWalk walks the describe document as a client does that knows nothing else. Nobody and a plain user get what the table of roles
// says. The administrator's every call must succeed, so that the checker of servertest holds its answer against the document; what cannot
// succeed yet says so in its recipe.
func TestWalk(t *testing.T) {
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, publicKey(t)+"\n") }))
	t.Cleanup(keys.Close)
	e := servertest.New(t, withDrivers, func(p *servertest.ProvisionerConfig, _ *servertest.ServerConfig) {
		p.KeyHosts = provisioner.KeyHosts{Launchpad: keys.URL, GitHub: keys.URL}
	})
	w := &walker{roleWorld: newRoleWorld(t, e), t: t}
	rows := parseRoles(t)
	var d struct {
		Resources []struct{ Anon, Auth *describedHandler }
	}
	e.Anon.Get("describe/").Into(t, &d)
	seen := map[string]bool{}
	for _, r := range d.Resources {
		for _, h := range []*describedHandler{r.Anon, r.Auth} {
			if h == nil {
				continue
			}
			for _, a := range h.Actions {
				op := w.operation(h, a)
				if op == nil {
					t.Errorf("%s %s: the API has no such operation", h.Name, a.Name)
					continue
				}
				if !seen[op.ID] {
					seen[op.ID] = true
					t.Run(op.ID, func(t *testing.T) { w.walk(t, h, op, rows[op.ID]) })
				}
			}
		}
	}
	for _, h := range api.Handlers {
		for _, op := range h.Ops {
			if hidden := h.Hidden || h.Prefix != "/MAAS/api/2.0"; seen[op.ID] == hidden {
				t.Errorf("%s: described %v, hidden %v", op.ID, seen[op.ID], hidden)
			}
		}
	}
	if log := e.Log.String(); strings.Contains(log, "request panicked") || strings.Contains(log, "request failed") {
		t.Errorf("faults of ours:\n%s", log)
	}
}

// describedHandler is a handler of the describe document.
type describedHandler struct {
	Name, Path string
	Params     []string
	Actions    []struct {
		Name, Method string
		Op           *string
	}
}

type walker struct {
	*roleWorld
	t *testing.T
}

// operation finds what the document means.
func (w *walker) operation(h *describedHandler, a struct {
	Name, Method string
	Op           *string
}) *api.Operation {
	name := ""
	if a.Op != nil {
		name = *a.Op
	}
	for _, x := range api.Handlers {
		for _, op := range x.Ops {
			if op.Method == a.Method && op.Op == name && x.Prefix+op.Path == h.Path {
				return op
			}
		}
	}
	return nil
}

func (w *walker) walk(t *testing.T, h *describedHandler, op *api.Operation, row roleRow) {
	for _, c := range []struct {
		who  *servertest.Caller
		want string
	}{{w.e.Anon, row.anonymous}, {w.e.User, row.user}} {
		a := w.call(t, c.who, op)
		if denied := a.Status == 401 || a.Status == 403; c.want != strconv.Itoa(a.Status) && (c.want != "yes" || denied) && a.Status != http.StatusNotImplemented {
			t.Errorf("%q: %d %.200s; want %s", c.who.User.Username, a.Status, a.Text(), c.want)
		}
	}
	r := recipe{}
	if make := recipes[op.ID]; make != nil {
		r = make(w, t)
	}
	who := w.e.Admin
	if op.AnonOnly {
		who = w.e.Anon
	}
	if r.by != nil {
		who = r.by
	}
	values, path := w.pathValues(t, op), h.Path
	maps.Copy(values, r.at)
	for _, p := range h.Params {
		path = strings.ReplaceAll(path, "{"+p+"}", url.PathEscape(values[p]))
	}
	form := url.Values{}
	given := func(name string) bool {
		same := func(f string) bool { return strings.HasPrefix(f, name+"=") }
		return slices.ContainsFunc(r.form, same) || slices.ContainsFunc(r.files, same)
	}
	for _, p := range op.Params {
		if p.Required && p.In != api.Path && p.In != api.Body && !given(p.Name) {
			form.Set(p.Name, w.fill(t, op, p))
		}
	}
	for _, f := range r.form {
		k, v, _ := strings.Cut(f, "=")
		form.Add(k, v)
	}
	query := url.Values{}
	if op.Op != "" {
		query.Set("op", op.Op)
	}
	var a servertest.Answer
	switch {
	case op.Method == http.MethodGet || op.Method == http.MethodDelete:
		maps.Copy(query, form)
		a = who.Send(op.Method, path+"?"+query.Encode(), "", nil)
	case r.raw != "":
		a = who.Send(op.Method, path, "application/octet-stream", strings.NewReader(r.raw))
	case len(r.files) > 0:
		var pairs []string
		for k, vs := range form {
			for _, v := range vs {
				pairs = append(pairs, k+"="+v)
			}
		}
		kind, body := multipartOf(pairs, r.files)
		a = who.Send(op.Method, path+"?"+query.Encode(), kind, body)
	default:
		a = who.Send(op.Method, path+"?"+query.Encode(), "application/x-www-form-urlencoded", strings.NewReader(form.Encode()))
	}
	want := op.Status
	if op.Gone != "" {
		want = http.StatusGone
	}
	if r.status != 0 {
		want = r.status
	}
	if a.Status != want {
		t.Errorf("%s %s %v: %d %.400s; want %d", op.Method, path, form, a.Status, a.Text(), want)
	}
}

// callAs lends a caller the helpers of the behaviours.
func callAs(t *testing.T, e *servertest.Env, c *servertest.Caller) who {
	return who{&world{Env: e, t: t}, c}
}

// made posts as an administrator and answers a value of what was made.
func (w *walker) made(t *testing.T, key, path string, form ...string) string {
	t.Helper()
	return callAs(t, w.e, w.e.Admin).post(path, form...).str(key)
}

func (w *walker) unique(prefix string) string {
	w.n++
	return fmt.Sprintf("%s%d", prefix, w.n)
}

// disk adds a disk to a machine that w.machine made.
func (w *walker) disk(t *testing.T, systemID string) string {
	t.Helper()
	return w.made(t, "id", "nodes/"+systemID+"/blockdevices/", "name="+w.unique("d"), "id_path=/dev/x"+w.unique(""), "size=50000000000", "block_size=512")
}

// on answers a recipe below nodes/ID/blockdevices/ID/, after what is done there first.
func onDisk(first ...string) func(w *walker, t *testing.T) recipe {
	return func(w *walker, t *testing.T) recipe {
		m := w.machine(t)
		d := w.disk(t, m["system_id"])
		for _, f := range first {
			op, form, _ := strings.Cut(f, " ")
			w.made(t, "id", "nodes/"+m["system_id"]+"/blockdevices/"+d+"/?op="+op, form)
		}
		return recipe{at: map[string]string{"system_id": m["system_id"], "id": d, "device_id": d}, form: []string{"name=renamed", "fstype=ext4", "mount_point=/srv", "tag=t", "id_path=/dev/y"}}
	}
}

func onPartition(first ...string) func(w *walker, t *testing.T) recipe {
	return func(w *walker, t *testing.T) recipe {
		m := w.machine(t)
		d := w.disk(t, m["system_id"])
		p := w.made(t, "id", "nodes/"+m["system_id"]+"/blockdevices/"+d+"/partitions/", "size=10000000000")
		for _, f := range first {
			op, form, _ := strings.Cut(f, " ")
			w.made(t, "id", "nodes/"+m["system_id"]+"/blockdevices/"+d+"/partition/"+p+"?op="+op, form)
		}
		return recipe{at: map[string]string{"system_id": m["system_id"], "id": p, "device_id": d}, form: []string{"fstype=ext4", "mount_point=/srv", "tag=t"}}
	}
}

// newDisks are parameters that name two unused disks of a new machine.
func newDisks(form ...string) func(w *walker, t *testing.T) recipe {
	return func(w *walker, t *testing.T) recipe {
		m := w.machine(t)
		r := recipe{at: map[string]string{"system_id": m["system_id"]}}
		for _, f := range form {
			for strings.Contains(f, "DISK") {
				f = strings.Replace(f, "DISK", w.disk(t, m["system_id"]), 1)
			}
			r.form = append(r.form, strings.Split(f, " ")...)
		}
		return r
	}
}

// tagged, scripted, and so on make an object whose name or id stands in the path.
func named(key, id, path string, form ...string) func(w *walker, t *testing.T) recipe {
	return func(w *walker, t *testing.T) recipe {
		name := w.unique("w")
		var filled []string
		for _, f := range form {
			filled = append(filled, strings.ReplaceAll(f, "NAME", name))
		}
		return recipe{at: map[string]string{key: w.made(t, id, path, filled...)}}
	}
}

func with(first func(w *walker, t *testing.T) recipe, form ...string) func(w *walker, t *testing.T) recipe {
	return func(w *walker, t *testing.T) recipe {
		r := first(w, t)
		for _, f := range form {
			r.form = append(r.form, strings.ReplaceAll(f, "UNIQUE", w.unique("u")))
		}
		return r
	}
}

func plain(form ...string) func(w *walker, t *testing.T) recipe {
	return with(func(*walker, *testing.T) recipe { return recipe{} }, form...)
}

func cannot(status int, form ...string) func(w *walker, t *testing.T) recipe {
	return func(w *walker, t *testing.T) recipe {
		r := plain(form...)(w, t)
		r.status = status
		return r
	}
}

func withFile(files ...string) func(w *walker, t *testing.T) recipe {
	return func(w *walker, t *testing.T) recipe {
		var list []string
		for _, f := range files {
			list = append(list, strings.ReplaceAll(f, "UNIQUE", w.unique("u")))
		}
		return recipe{files: list}
	}
}

// inStatus is a machine in a status, of the administrator.
func inStatus(s storage.NodeStatus, form ...string) func(w *walker, t *testing.T) recipe {
	return func(w *walker, t *testing.T) recipe {
		id := w.machine(t)["system_id"]
		err := w.e.DB.Write(t.Context(), func(tx *storage.Tx) error {
			n, err := tx.LockNodeBySystemID(id)
			if err != nil {
				return err
			}
			n.Status, n.OwnerID = s, &w.e.Admin.User.ID
			n.Locked = slices.Contains(form, "locked")
			return tx.UpdateNodeFrom(&n, storage.StatusReady, nil)
		})
		if err != nil {
			t.Fatal(err)
		}
		return recipe{at: map[string]string{"system_id": id}, form: slices.DeleteFunc(slices.Clone(form), func(f string) bool { return f == "locked" })}
	}
}

func ownFile(w *walker, t *testing.T) recipe {
	name := w.unique("f")
	callAs(t, w.e, w.e.Admin).upload("files/", []string{"filename=" + name}, "file=a=x").code(201)
	return recipe{at: map[string]string{"filename": name}, form: []string{"filename=" + name}}
}

func ownScript(w *walker, t *testing.T) recipe {
	name := w.unique("s")
	a := callAs(t, w.e, w.e.Admin).upload("scripts/", []string{"name=" + name, "type=commissioning", "tags=one"}, "script=s=#!/bin/sh\n")
	callAs(t, w.e, w.e.Admin).put("scripts/"+name, "script=#!/bin/sh\nexit 1\n").code(200)
	return recipe{at: map[string]string{"name": a.str("name")}, form: []string{"to=-1", "tag=two", "title=x"}}
}
