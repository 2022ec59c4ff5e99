package server_test

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

// upload sends a multipart form: fields as key and value, files as name and content.
func upload(c *servertest.Caller, method, path string, fields, files map[string]string) servertest.Answer {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for k, v := range fields {
		_ = w.WriteField(k, v)
	}
	for k, v := range files {
		p, _ := w.CreateFormFile(k, k)
		_, _ = p.Write([]byte(v))
	}
	_ = w.Close()
	return c.Send(method, path, w.FormDataContentType(), &b)
}

func want(t *testing.T, a servertest.Answer, status int, part string) {
	t.Helper()
	if body := strings.Join(strings.Fields(a.Text()), " "); a.Status != status || !strings.Contains(body, part) {
		t.Errorf("%d %s; want %d with %q", a.Status, body, status, part)
	}
}

func TestScripts(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	text := "#!/bin/sh\n# --- Start MAAS 1.0 script metadata ---\n# title: T\n# timeout: 0:05:00\n# tags: one, two\n# --- End MAAS 1.0 script metadata ---\necho 1\n"
	want(t, upload(user, "POST", "scripts/", nil, map[string]string{"foo": text}), 403, "can_edit_global_entities")
	want(t, admin.Post("scripts/"), 400, `"script": [ "This field is required." ]`)
	want(t, upload(admin, "POST", "scripts/", nil, map[string]string{"foo": text}), 200, `"resource_uri": "/MAAS/api/2.0/scripts/foo"`)
	want(t, upload(admin, "POST", "scripts/", map[string]string{"name": "foo"}, map[string]string{"script": text}), 400, "Script with this Name already exists.")
	want(t, upload(admin, "POST", "scripts/", map[string]string{"name": "bar", "type": "commissioning", "script": text, "comment": "first"}, nil), 200, `"type_name": "Commissioning script"`)
	run(t, []step{
		{user, "GET", "scripts/foo", "", 200, `"timeout": "0:05:00"`},
		{user, "GET", "scripts/foo", "", 200, `"tags": [ "one", "two", "node" ]`},
		{user, "GET", "scripts/nope", "", 404, "No Script matches the given query."},
		{user, "GET", "scripts/?filters=one", "", 200, `"name": "foo"`},
		{user, "GET", "scripts/?type=testing&filters=bar", "", 200, "[]"},
		{user, "GET", "scripts/?filters=deploy-info,foo", "", 200, `"name": "50-maas-01-commissioning"`},
		{user, "GET", "scripts/?type=what", "", 400, "Unknown script type"},
		{user, "GET", "scripts/foo?include_script=1", "", 200, base64.StdEncoding.EncodeToString([]byte(text))},
		{admin, "POST", "scripts/foo?op=add_tag", "tag=a,b", 400, `may not contain a ","`},
		{admin, "POST", "scripts/foo?op=add_tag", "", 400, "No provided tag!"},
		{admin, "POST", "scripts/foo?op=add_tag", "tag=three", 200, `"three"`},
		{admin, "POST", "scripts/foo?op=remove_tag", "tag=one", 200, `"tags": [ "two", "node", "three" ]`},
		{admin, "PUT", "scripts/foo", "title=other", 400, "May not override values defined in embedded YAML."},
		{admin, "PUT", "scripts/foo", "hardware_type=memory&destructive=true", 200, `"tags": [ "two", "three", "memory", "destructive" ]`},
		{user, "PUT", "scripts/foo", "description=x", 403, ""},
		{admin, "PUT", "scripts/maas-lshw", "title=x", 400, "Not allowed to change on default scripts."},
		{admin, "PUT", "scripts/maas-lshw", "timeout=60", 200, `"timeout": "0:01:00"`},
		{admin, "DELETE", "scripts/maas-lshw", "", 400, "Unable to delete default script"},
		{admin, "POST", "scripts/maas-lshw?op=revert", "to=-1", 400, "Unable to revert default script"},
		{admin, "POST", "scripts/foo?op=revert", "", 400, "No provided to!"},
		{admin, "POST", "scripts/foo?op=revert", "to=x", 400, "integer"},
		{admin, "POST", "scripts/foo?op=revert", "to=99999", 400, "99999 not found in history"},
		{admin, "POST", "scripts/foo?op=revert", "to=-7", 400, "-7 not found in history"},
	})
	var first, second api.Script
	admin.Get("scripts/foo").Into(t, &first)
	want(t, upload(admin, "PUT", "scripts/foo", map[string]string{"comment": "second"}, map[string]string{"script": strings.Replace(text, "echo 1", "echo 2", 1)}), 200, `"comment": "second"`)
	admin.Get(fmt.Sprintf("scripts/%d", first.ID)).Into(t, &second)
	if len(second.History) != 2 || second.History[0]["comment"] != "second" || second.History[1]["comment"] != nil {
		t.Fatalf("history: %v", second.History)
	}
	old := int64(first.History[0]["id"].(float64))
	if a := user.Get(fmt.Sprintf("scripts/foo?op=download&rev=%d", old)); a.Text() != text || a.Header.Get("Content-Type") != "application/binary" {
		t.Errorf("old text: %d %q", a.Status, a.Text())
	}
	if a := user.Get("scripts/foo?op=download"); !strings.Contains(a.Text(), "echo 2") {
		t.Errorf("current text: %q", a.Text())
	}
	want(t, user.Get("scripts/foo?op=download&revision=424242"), 400, "424242 not found in history")
	want(t, admin.Post("scripts/foo?op=revert", "to", "-1"), 200, `"name": "foo"`)
	if a := user.Get("scripts/foo?op=download"); a.Text() != text {
		t.Errorf("reverted text: %q", a.Text())
	}
	run(t, []step{
		{user, "GET", "commissioning-scripts/", "", 403, ""},
		{admin, "GET", "commissioning-scripts/", "", 200, `"30-maas-01-bmc-config", "50-maas-01-commissioning", "bar"`},
		{admin, "GET", "commissioning-scripts/foo", "", 404, ""},
		{admin, "GET", "commissioning-scripts/bar", "", 200, "echo 1"},
		{admin, "POST", "commissioning-scripts/", "name=baz", 400, `"content"`},
		{admin, "POST", "commissioning-scripts/", "name=baz&content=#!/bin/sh", 200, `"deprecated"`},
		{admin, "PUT", "commissioning-scripts/baz", "content=#!/bin/bash", 200, "OK"},
		{admin, "GET", "commissioning-scripts/baz", "", 200, "#!/bin/bash"},
		{admin, "DELETE", "commissioning-scripts/baz", "", 204, ""},
		{user, "DELETE", "scripts/foo", "", 403, ""},
		{admin, "DELETE", "scripts/foo", "", 204, ""},
		{admin, "DELETE", "scripts/foo", "", 404, ""},
	})
}

// addResults gives a machine the results of a commissioning and of tests, and answers the ids of the sets.
func addResults(t *testing.T, e *servertest.Env, systemID string) (commissioning, testing int64) {
	t.Helper()
	err := e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		n, err := tx.Node(systemID)
		if err != nil {
			return err
		}
		zero, one := int64(0), int64(1)
		set := storage.ScriptSet{NodeID: n.ID}
		if err := tx.AddScriptSet(&set, []storage.ScriptResult{
			{Name: "maas-lshw", Status: storage.ScriptPassed, ExitStatus: &zero, Stdout: []byte("<list/>"), Output: []byte("<list/>"), Started: tx.Now(), Ended: tx.Now()},
			{Name: "broken", Status: storage.ScriptFailed, ExitStatus: &one, Stderr: []byte("oops"), Output: []byte("oops"), Started: tx.Now(), Ended: tx.Now()}}); err != nil {
			return err
		}
		tests := storage.ScriptSet{NodeID: n.ID, Type: storage.SetTesting}
		commissioning = set.ID
		err = tx.AddScriptSet(&tests, []storage.ScriptResult{{Name: "check", Instance: "disk:sda", Status: storage.ScriptPending,
			Parameters: []byte(`{"key":{"type":"password","value":"hush"}}`)}})
		testing = tests.ID
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return commissioning, testing
}

func TestResults(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	addMachine(t, e, "abc123", storage.StatusReady)
	addMachine(t, e, "abc124", storage.StatusReady)
	addMachine(t, e, "abc125", storage.StatusAllocated)
	if err := e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		n, err := tx.LockNodeBySystemID("abc125")
		if err != nil {
			return err
		}
		n.OwnerID = &admin.User.ID
		return tx.UpdateNode(&n)
	}); err != nil {
		t.Fatal(err)
	}
	set, tests := addResults(t, e, "abc123")
	addResults(t, e, "abc125")
	at := func(id int64) string { return fmt.Sprintf("nodes/abc123/results/%d/", id) }
	run(t, []step{
		{user, "GET", "nodes/abc123/results/", "", 200, `"type_name": "Testing"`},
		{user, "GET", "nodes/abc123/results/?type=commissioning", "", 200, `"status_name": "Failed"`},
		{user, "GET", "nodes/abc123/results/?type=sometimes", "", 400, "Unknown result type"},
		{user, "GET", "nodes/nope/results/", "", 404, ""},
		{user, "GET", "nodes/abc125/results/", "", 403, ""},
		{user, "GET", at(set), "", 200, `"name": "broken"`},
		{user, "GET", at(set) + "?filters=maas-lshw&include_output=yes", "", 200, base64.StdEncoding.EncodeToString([]byte("<list/>"))},
		{user, "GET", at(tests), "", 200, `"value": "REDACTED"`},
		{user, "GET", at(tests), "", 200, `"runtime": ""`},
		{user, "GET", "nodes/abc123/results/current-commissioning/", "", 200, fmt.Sprintf(`"id": %d`, set)},
		{user, "GET", "nodes/abc123/results/current-installation/", "", 400, "no installation results"},
		{user, "GET", "nodes/abc123/results/newest/", "", 400, "Unknown id"},
		{user, "GET", "nodes/abc124/results/" + fmt.Sprint(set) + "/", "", 404, "No ScriptSet matches the given query."},
		{user, "PUT", at(set), "suppressed=true", 403, ""},
		{admin, "PUT", at(set), "suppressed=testing", 400, ""},
		{user, "GET", "machines/abc123/", "", 200, `"commissioning_status_name": "Failed"`},
		{admin, "PUT", at(set), "suppressed=true&filters=broken", 200, `"suppressed": true`},
		{user, "GET", "machines/abc123/", "", 200, `"commissioning_status_name": "Passed"`},
		{user, "DELETE", at(tests), "", 403, ""},
		{admin, "DELETE", at(set), "", 400, "Unable to delete current commissioning"},
		{user, "GET", at(set) + "?op=download", "", 200, " maas-lshw -"},
		{user, "GET", at(set) + "?op=download&filters=maas-lshw&output=stdout", "", 200, "<list/>"},
		{user, "GET", at(set) + "?op=download&filetype=zip", "", 400, "Unknown filetype"},
		{user, "GET", at(set) + "?op=download&output=smell", "", 400, "Unknown output"},
		{user, "GET", "commissioning-results/?system_id=abc123", "", 200, `"name": "broken.err"`},
		{user, "GET", "installation-results/?result_type=1", "", 200, "[]"},
		{user, "GET", "commissioning-results/?result_type=x", "", 400, ""},
		{user, "GET", "commissioning-results/?name=maas-lshw", "", 200, `"script_result": 0`},
		{admin, "DELETE", at(tests), "", 204, ""},
		{admin, "DELETE", at(tests), "", 404, ""},
	})
	if a := user.Get(at(set)); strings.Contains(a.Text(), `"output"`) {
		t.Error("outputs were not asked for")
	}
	if a := user.Get("commissioning-results/"); strings.Contains(a.Text(), "abc125") {
		t.Error("results of a machine that the caller may not see")
	}
	a := user.Get(at(set) + "?op=download&filetype=tar.xz&output=all")
	x, err := xz.NewReader(bytes.NewReader(a.Body))
	if err != nil {
		t.Fatal(a.Status, err)
	}
	names := map[string]string{}
	for r := tar.NewReader(x); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r)
		names[h.Name] = string(b)
	}
	if root := fmt.Sprintf("host-abc123.maas-commissioning-%d/", set); len(names) != 8 || names[root+"maas-lshw.out"] != "<list/>" || names[root+"broken.err"] != "oops" {
		t.Errorf("archive: %v", names)
	}
}

func TestDetails(t *testing.T) {
	e := servertest.New(t)
	addMachine(t, e, "abc123", storage.StatusReady)
	empty := []byte("\x15\x00\x00\x00\x0alshw\x00\x0alldp\x00\x00")
	empty[0] = byte(len(empty))
	if a := e.User.Get("machines/abc123/?op=details"); a.Status != 200 || !bytes.Equal(a.Body, empty) || a.Header.Get("Content-Type") != "application/bson" {
		t.Errorf("%d %q", a.Status, a.Body)
	}
	addResults(t, e, "abc123")
	full := []byte("\x00\x00\x00\x00\x05lshw\x00\x07\x00\x00\x00\x00<list/>\x0alldp\x00\x00")
	full[0] = byte(len(full))
	for _, path := range []string{"machines/abc123/?op=details", "nodes/abc123/?op=details"} {
		if a := e.User.Get(path); a.Status != 200 || !bytes.Equal(a.Body, full) {
			t.Errorf("%s: %d %q", path, a.Status, a.Body)
		}
	}
	run(t, []step{
		{e.User, "GET", "nodes/zzz/?op=details", "", 404, ""},
		{e.User, "GET", "rackcontrollers/abc123/?op=details", "", 404, "No RackController matches the given query."},
		{e.User, "GET", "machines/abc123/?op=get_token", "", 403, ""},
		{e.Admin, "GET", "machines/abc123/?op=get_token", "", 200, "null"},
		{e.Admin, "GET", "machines/zzz/?op=get_token", "", 404, ""},
		{e.Anon, "GET", "machines/?op=is_action_in_progress&mac_address=52:54:00:00:00:01", "", 200, "false"},
		{e.Anon, "GET", "nodes/?op=is_action_in_progress&mac_address=", "", 200, "false"},
	})
	if _, _, err := e.P.MachineCredentials(t.Context(), "abc123"); err != nil {
		t.Fatal(err)
	}
	want(t, e.Admin.Get("machines/abc123/?op=get_token"), 200, `"token_secret"`)
}

func TestNodeDevices(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	nic := addMachine(t, e, "abc123", storage.StatusReady)
	at := "0000:02:00.0"
	var pci, usb storage.HardwareDevice
	if err := e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		n, err := tx.Node("abc123")
		if err != nil {
			return err
		}
		pci = storage.HardwareDevice{NodeID: n.ID, Bus: storage.BusPCIE, HardwareType: 4, VendorID: "8086", ProductID: "1521", VendorName: "Intel", Driver: "igb", BusNumber: 2,
			PCIAddress: &at, InterfaceID: &nic.ID}
		usb = storage.HardwareDevice{NodeID: n.ID, Bus: storage.BusUSB, VendorID: "1d6b", ProductID: "0002", BusNumber: 1, DeviceNumber: 3}
		if err := tx.SaveNodeDevice(&pci); err != nil {
			return err
		}
		return tx.SaveNodeDevice(&usb)
	}); err != nil {
		t.Fatal(err)
	}
	run(t, []step{
		{user, "GET", "nodes/abc123/devices/", "", 200, `"hardware_type_name": "Network"`},
		{user, "GET", "nodes/abc123/devices/?bus=USB", "", 200, `"pci_address": null`},
		{user, "GET", "nodes/abc123/devices/?bus=ISA", "", 400, "Unknown bus"},
		{user, "GET", "nodes/abc123/devices/?vendor_id=8086&hardware_type=storage", "", 200, "[]"},
		{user, "GET", "nodes/abc123/devices/?vendor_name=INTEL", "", 200, `"commissioning_driver": "igb"`},
		{user, "GET", "nodes/zzz/devices/", "", 404, ""},
		{user, "GET", "nodes/abc123/devices/0000:02:00.0/", "", 200, `"name": "eth0"`},
		{user, "GET", "nodes/abc123/devices/1:3/", "", 200, `"product_id": "0002"`},
		{user, "GET", "nodes/abc123/devices/" + fmt.Sprint(pci.ID) + "/", "", 200, `"bus_name": "PCIE"`},
		{user, "GET", "nodes/abc123/devices/999999/", "", 404, "No NodeDevice matches the given query."},
		{user, "GET", "nodes/abc123/devices/what/", "", 400, "Invalid id format!"},
		{user, "DELETE", "nodes/abc123/devices/1:3/", "", 403, ""},
		{admin, "DELETE", "nodes/abc123/devices/1:3/", "", 204, ""},
		{admin, "DELETE", "nodes/abc123/devices/" + fmt.Sprint(usb.ID) + "/", "", 404, ""},
	})
}

func TestNotifications(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	run(t, []step{
		{user, "POST", "notifications/", "message=x", 403, "can_edit_notifications"},
		{admin, "POST", "notifications/", "", 400, `"message": [ "This field is required." ]`},
		{admin, "POST", "notifications/", "message=x&category=loud", 400, "Select a valid choice. loud is not one of the available choices."},
		{admin, "POST", "notifications/", "message={n} disks", 400, "'n' is not in the context"},
		{admin, "POST", "notifications/", "message=x&context=[1]", 400, "Context is not a JSON object."},
		{admin, "POST", "notifications/", "message=x&user=nobody", 400, "Select a valid choice."},
		{admin, "POST", "notifications/", "message={n} disks&context={\"n\":2}&admins=true&ident=i1&category=warning", 200, `"n": 2`},
		{admin, "POST", "notifications/", "message=for you&user=user&dismissable=false", 200, `"username": "user"`},
		{admin, "POST", "notifications/", "message=x&ident=i1", 400, "Notification with this Ident already exists."},
		{admin, "GET", "notifications/", "", 200, `"ident": "i1"`},
		{user, "GET", "notifications/", "", 200, `"message": "for you"`},
		{user, "GET", "notifications/1/", "", 403, ""},
		{admin, "GET", "notifications/2/", "", 200, `"dismissable": false`},
		{user, "POST", "notifications/1/?op=dismiss", "", 403, ""},
		{user, "POST", "notifications/2/?op=dismiss", "", 200, "null"},
		{user, "GET", "notifications/", "", 200, `"message": "for you"`},
		{admin, "PUT", "notifications/2/", "message=changed", 200, `"dismissable": false`},
		{admin, "PUT", "notifications/2/", "dismissable=true", 200, `"message": "changed"`},
		{user, "POST", "notifications/2/?op=dismiss", "", 200, "null"},
		{user, "GET", "notifications/", "", 200, "[]"},
		{admin, "POST", "notifications/1/?op=dismiss", "", 200, "null"},
		{admin, "GET", "notifications/", "", 200, "[]"},
		{user, "DELETE", "notifications/1/", "", 403, ""},
		{admin, "DELETE", "notifications/1/", "", 204, ""},
		{admin, "DELETE", "notifications/1/", "", 404, ""},
		{e.Anon, "GET", "notifications/", "", 401, ""},
	})
	want(t, admin.Post("notifications/", "message", "all", "users", "true"), 200, `"users": true`)
	if a := user.Get("notifications/"); !strings.Contains(a.Text(), `"all"`) {
		t.Errorf("users do not see what is for users: %s", a.Text())
	}
	if a := admin.Get("notifications/"); strings.Contains(a.Text(), `"all"`) {
		t.Errorf("administrators see what is for users: %s", a.Text())
	}
}

func TestFiles(t *testing.T) {
	e := servertest.New(t)
	user := e.User
	put := func(c *servertest.Caller, name, content string) servertest.Answer {
		return upload(c, "POST", "files/", map[string]string{"filename": name}, map[string]string{"file": content})
	}
	want(t, upload(user, "POST", "files/", nil, map[string]string{"file": "x"}), 400, "Filename not supplied")
	want(t, user.Post("files/", "filename", "x"), 400, "File not supplied")
	want(t, upload(user, "POST", "files/", map[string]string{"filename": "x"}, map[string]string{"file": "1", "file2": "2"}), 400, "Exactly one file must be supplied")
	if a := put(user, "a/b c", "one\x00"); a.Status != 201 || len(a.Body) != 0 {
		t.Errorf("%d %q", a.Status, a.Body)
	}
	want(t, put(user, "other", "two"), 201, "")
	want(t, put(e.Admin, "other", "the administrator's"), 201, "")
	var list []api.StoredFileListing
	user.Get("files/?prefix=a").Into(t, &list)
	if len(list) != 1 || list[0].Filename != "a/b c" {
		t.Fatalf("%+v", list)
	}
	want(t, put(user, "a/b c", "one again"), 201, "") // the key stays
	if a := e.Anon.Get(list[0].AnonResourceURI); a.Status != 200 || a.Text() != "one again" {
		t.Errorf("by key: %d %q", a.Status, a.Text())
	}
	if a := user.Get(list[0].ResourceURI); a.Status != 200 || !strings.Contains(a.Text(), base64.StdEncoding.EncodeToString([]byte("one again"))) {
		t.Errorf("as an object: %d %q", a.Status, a.Text())
	}
	if a := user.Get("files/nope/"); a.Status != 404 || a.Text() != "Not Found" || a.Header.Get("Workaround") != "bug1123986" {
		t.Errorf("%d %q %v", a.Status, a.Text(), a.Header)
	}
	run(t, []step{
		{user, "GET", "files/?op=get&filename=other", "", 200, "two"},
		{user, "GET", "files/?op=get&filename=nope", "", 404, "File not found"},
		{user, "GET", "files/?op=get", "", 400, ""},
		{e.Anon, "GET", "files/?op=get&filename=other", "", 400, ""},
		{e.Anon, "GET", "files/other/", "", 401, ""},
		{e.Anon, "GET", "files/?op=get_by_key&key=00000000-0000-4000-8000-000000000000", "", 404, ""},
		{user, "DELETE", "files/other/", "", 204, ""},
		{user, "DELETE", "files/other/", "", 404, ""},
		{user, "DELETE", "files/?filename=a/b+c", "", 204, ""},
		{user, "DELETE", "files/", "", 400, ""},
		{user, "GET", "files/", "", 200, "[]"},
		{e.Admin, "GET", "files/", "", 200, `"other"`},
	})
}
