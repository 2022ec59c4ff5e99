package server_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

// The upload as the command line does it: announce, then 4 MiB pieces to the URI of the answer.
func TestBootResourceUpload(t *testing.T) {
	e := servertest.New(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sum := sha256.Sum256(data)
	sha := hex.EncodeToString(sum[:])
	pairs := []string{"name", "custom/web", "architecture", "amd64/generic", "sha256", sha, "size", strconv.Itoa(len(data)), "filetype", "tgz", "title", "Web"}
	if a := e.User.Post("boot-resources/", pairs...); a.Status != http.StatusForbidden {
		t.Errorf("announced by a user: %d %s", a.Status, a.Text())
	}
	if a := e.Admin.Post("boot-resources/", "name", "x"); a.Status != http.StatusBadRequest {
		t.Errorf("announced with nothing: %d %s", a.Status, a.Text())
	}
	a := e.Admin.Post("boot-resources/", pairs...)
	if a.Status != http.StatusCreated {
		t.Fatalf("announced: %d %s", a.Status, a.Text())
	}
	var r api.BootResource
	a.Into(t, &r)
	file := newest(t, r)
	if r.Type != "Uploaded" || r.Title == nil || *r.Title != "Web" || file.Complete || file.UploadURI == nil || file.Filetype != "root-tgz" {
		t.Fatalf("announced as %+v", r)
	}
	send := func(who *servertest.Caller, chunk []byte) servertest.Answer {
		return who.Send(http.MethodPut, *file.UploadURI, "application/octet-stream", bytes.NewReader(chunk))
	}
	if a := send(e.User, data[:10]); a.Status != http.StatusForbidden {
		t.Errorf("a piece from a user: %d %s", a.Status, a.Text())
	}
	if a := send(e.Admin, nil); a.Status != http.StatusBadRequest || a.Text() != "Missing data." {
		t.Errorf("an empty piece: %d %s", a.Status, a.Text())
	}
	for at := 0; at < len(data); at += 300_000 {
		if a := send(e.Admin, data[at:min(at+300_000, len(data))]); a.Status != http.StatusOK || a.Text() != "OK" {
			t.Fatalf("piece at %d: %d %s", at, a.Status, a.Text())
		}
	}
	if a := send(e.Admin, []byte("x")); a.Status != http.StatusBadRequest || a.Text() != "Cannot upload to a complete file." {
		t.Errorf("a piece too many: %d %s", a.Status, a.Text())
	}
	a = e.User.Get("boot-resources/" + strconv.FormatInt(r.ID, 10) + "/")
	a.Into(t, &r)
	if f := newest(t, r); !f.Complete || f.UploadURI != nil || f.SHA256 != sha {
		t.Errorf("uploaded: %+v", f)
	}
	run(t, []step{
		{e.User, "GET", "boot-resources/", "", 200, `"name": "custom/web"`},
		{e.User, "GET", "boot-resources/?type=synced", "", 200, `[]`},
		{e.User, "GET", "boot-resources/?type=odd", "", 400, "odd"},
		{e.User, "GET", "boot-resources/99/", "", 404, "No BootResource matches the given query."},
		{e.User, "GET", "boot-resources/?op=is_importing", "", 200, "false"},
		{e.User, "DELETE", "boot-resources/" + strconv.FormatInt(r.ID, 10) + "/", "", 403, ""},
		{e.Admin, "DELETE", "boot-resources/" + strconv.FormatInt(r.ID, 10) + "/", "", 204, ""},
		{e.Admin, "GET", "boot-resources/", "", 200, `[]`},
	})
	if list := e.User.Get("boot-resources/").Text(); strings.Contains(list, `"sets"`) {
		t.Errorf("a list shows versions: %s", list)
	}
}

func newest(t *testing.T, r api.BootResource) api.BootResourceFile {
	t.Helper()
	for _, set := range r.Sets {
		for _, f := range set.Files {
			return f
		}
	}
	t.Fatalf("no file in %+v", r)
	return api.BootResourceFile{}
}

func TestSyncedResourceTakesNoUpload(t *testing.T) {
	e := servertest.New(t)
	var f storage.BootResourceFile
	var r storage.BootResource
	err := e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		r = storage.BootResource{Rtype: storage.ResourceSynced, Name: "ubuntu/noble", Architecture: "amd64/ga-24.04"}
		if err := tx.InsertBootResource(&r); err != nil {
			return err
		}
		set := storage.BootResourceSet{ResourceID: r.ID, Version: "20260101", Label: "stable"}
		if err := tx.InsertBootResourceSet(&set); err != nil {
			return err
		}
		f = storage.BootResourceFile{SetID: set.ID, Filename: "squashfs", Filetype: "squashfs", SHA256: strings.Repeat("a", 64), Size: 5}
		return tx.InsertBootResourceFile(&f)
	})
	if err != nil {
		t.Fatal(err)
	}
	a := e.Admin.Send(http.MethodPut, "boot-resources/"+strconv.FormatInt(r.ID, 10)+"/upload/"+strconv.FormatInt(f.ID, 10)+"/", "application/octet-stream",
		strings.NewReader("abcde"))
	if a.Status != http.StatusForbidden {
		t.Errorf("a piece for a synced image: %d %s", a.Status, a.Text())
	}
}

// Every type of file goes up and is stored under the name that installers know; what a system cannot take is refused.
func TestBootResourceFiletypes(t *testing.T) {
	e := servertest.New(t)
	upload := func(name, kind string) servertest.Answer {
		data := []byte(name + " " + kind)
		sum := sha256.Sum256(data)
		return e.Admin.Post("boot-resources/", "name", name, "architecture", "amd64", "sha256", hex.EncodeToString(sum[:]), "size", strconv.Itoa(len(data)), "filetype", kind)
	}
	for kind, want := range map[string][2]string{
		"": {"root-tgz", "root.tgz"}, "tgz": {"root-tgz", "root.tgz"}, "tbz": {"root-tbz", "root.tbz"}, "txz": {"root-txz", "root.txz"}, "squashfs": {"squashfs", "root.squashfs"},
		"ddtgz": {"root-dd", "root-dd"}, "ddtbz": {"root-dd.tar.bz2", "root-dd.tar.bz2"}, "ddtxz": {"root-dd.tar.xz", "root-dd.tar.xz"}, "ddtar": {"root-dd.tar", "root-dd.tar"},
		"ddraw": {"root-dd.raw", "root-dd.raw"}, "ddgz": {"root-dd.gz", "root-dd.gz"}, "dd.gz": {"root-dd.gz", "root-dd.gz"}, "ddbz2": {"root-dd.bz2", "root-dd.bz2"},
		"dd.bz2": {"root-dd.bz2", "root-dd.bz2"}, "ddxz": {"root-dd.xz", "root-dd.xz"}, "dd.xz": {"root-dd.xz", "root-dd.xz"},
	} {
		a := upload("plain-"+strings.ReplaceAll(kind, ".", "-"), kind)
		if a.Status != http.StatusCreated {
			t.Errorf("%q: %d %s", kind, a.Status, a.Text())
			continue
		}
		var r api.BootResource
		a.Into(t, &r)
		if f := newest(t, r); f.Filetype != want[0] || f.Filename != want[1] {
			t.Errorf("%q is stored as %s, %s", kind, f.Filetype, f.Filename)
		}
	}
	for _, c := range [][3]string{{"custom/x", "zip", "zip"}, {"windows/win2022", "tgz", "Invalid file type tgz for windows images."}, {"centos/mine", "ddgz", "Invalid file type ddgz for centos images."},
		{"plan9/x", "tgz", "Unsupported operating system plan9"}, {"ubuntu", "tgz", "ubuntu is a reserved name"}, {"ingot/light", "squashfs", "is a reserved name"}, {"custom/../x", "tgz", "Enter a valid value."}} {
		if a := upload(c[0], c[1]); a.Status != http.StatusBadRequest || !strings.Contains(a.Text(), c[2]) {
			t.Errorf("%s %s: %d %s", c[0], c[1], a.Status, a.Text())
		}
	}
}
