package e2e

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/simplestreams/streamtest"
)

// Images travel from a mirror to the region, which is killed in the middle, and from there to a rack, which fetches what a machine asks for
// once however many ask, and all of it when it is told to; the API says at each point what is where.
func TestImagesFromMirrorToRack(t *testing.T) {
	s := &site{t: t, dir: t.TempDir(), ports: freePorts(t)}
	top := t.TempDir()
	s.server = start(t, "region", "--dir", s.dir, "--http", s.ports.http, "--rack-link", s.ports.link, "--image-mirror", top)
	s.waitReady()
	s.connect()
	s.startRack()
	m := streamtest.New(t)
	m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "20250101", 40<<20)
	m.Publish()
	const path = "noble/amd64/20250101/squashfs"
	halfway := make(chan struct{})
	var once sync.Once
	m.SetHook(func(w http.ResponseWriter, r *http.Request, p string) bool {
		if p != path || r.Header.Get("Range") != "" {
			return false
		}
		w.Header().Set("Content-Length", "41943040")
		_, _ = w.Write(m.File(path)[:36<<20])
		w.(http.Flusher).Flush()
		once.Do(func() { close(halfway) })
		<-r.Context().Done()
		return true
	})
	ctx := t.Context()
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	create := func(url string) api.BootSource {
		t.Helper()
		src, err := s.client.BootSourcesCreate(ctx, api.BootSourcesCreateParams{URL: url, KeyringData: &api.File{Name: "ring.gpg", Content: m.Keyring()}})
		check("source", err)
		os := "ubuntu"
		_, err = s.client.BootSourceSelectionsCreate(ctx, api.BootSourceSelectionsCreateParams{BootSourceID: src.ID, OS: &os, Release: "noble", Arches: []string{"amd64"}})
		check("selection", err)
		return src
	}
	off := false
	_, err := s.client.BootSourceUpdate(ctx, api.BootSourceUpdateParams{ID: 1, Enabled: &off})
	check("default source", err)
	create(m.URL)
	_, err = s.client.BootResourcesImport(ctx, api.BootResourcesImportParams{})
	check("import", err)
	select {
	case <-halfway:
	case <-time.After(time.Minute):
		t.Fatal("the region asks the mirror for nothing")
	}
	image := func() (out api.BootResource, ok bool) {
		t.Helper()
		list, err := s.client.BootResourcesList(ctx, api.BootResourcesListParams{})
		check("list", err)
		for _, r := range list {
			if r.Name == "ubuntu/noble" {
				out, err = s.client.BootResourceRead(ctx, api.BootResourceReadParams{ID: r.ID})
				check("read", err)
				return out, true
			}
		}
		return out, false
	}
	poll(t, time.Minute, "there is progress", func() (bool, string) {
		r, _ := image()
		f := r.Sets["20250101"].Files["squashfs"]
		return !f.Complete && f.Progress != nil && *f.Progress > 30, "no progress"
	})
	s.restart()
	poll(t, 2*time.Minute, "the import goes on after the restart and ends", func() (bool, string) {
		on, err := s.client.BootResourcesIsImporting(ctx, api.BootResourcesIsImportingParams{})
		return err == nil && !on, "importing"
	})
	r, _ := image()
	set := r.Sets["20250101"]
	if !set.Complete || set.Label != "stable" || len(set.Files) != 3 || r.Type != "Synced" || r.Subarches == nil || *r.Subarches != "generic,ga-24.04" {
		t.Fatalf("image %+v", r)
	}
	if got := m.Ranges(path); len(got) < 2 || !strings.HasPrefix(got[len(got)-1], "bytes=") || got[len(got)-1] == "bytes=0-" {
		t.Errorf("the file was not fetched from where it was: %q", got)
	}

	racks, err := s.client.RackControllersList(ctx, api.RackControllersListParams{})
	check("racks", err)
	held := func() api.BootImageList {
		t.Helper()
		l, err := s.client.RackControllerListBootImages(ctx, api.RackControllerListBootImagesParams{SystemID: racks[0].SystemID})
		check("images of the rack", err)
		return l
	}
	if l := held(); len(l.Images) != 0 || l.Status != "out-of-sync" || !l.Connected {
		t.Errorf("before it fetched anything, the rack holds %+v", l)
	}
	// Fifty machines ask at once, and get the bytes that the mirror has.
	fetch := func(sha, name string) {
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				res, err := http.Get("http://" + s.ports.boot + "/images/" + sha + "/ubuntu/amd64/ga-24.04/noble/stable/" + name)
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				if n, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 || n != 40<<20 {
					t.Errorf("%s: %s, %d bytes, %v", name, res.Status, n, err)
				}
			})
		}
		wg.Wait()
	}
	poll(t, time.Minute, "the rack knows the image", func() (bool, string) {
		res, err := http.Head("http://" + s.ports.boot + "/images/" + set.Files["boot-kernel"].SHA256 + "/x")
		if err != nil {
			return false, err.Error()
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK, res.Status
	})
	fetch(set.Files["squashfs"].SHA256, "squashfs")
	_, err = s.client.RackControllersImportBootImages(ctx, api.RackControllersImportBootImagesParams{})
	check("import to the racks", err)
	poll(t, time.Minute, "the rack holds all", func() (bool, string) {
		l := held()
		return l.Status == "synced" && len(l.Images) == 1 && l.Images[0]["name"] == "ubuntu/noble", l.Status
	})
	// A folder is a source too, and what it has already is not read again.
	m.SetHook(nil)
	m.Write(filepath.Join(top, "mirror"))
	create("file://" + top + "/mirror")
	_, err = s.client.BootResourcesImport(ctx, api.BootResourcesImportParams{})
	check("import from the folder", err)
	poll(t, time.Minute, "the import ends", func() (bool, string) {
		on, err := s.client.BootResourcesIsImporting(ctx, api.BootResourcesIsImportingParams{})
		return err == nil && !on, "importing"
	})
	if r, _ := image(); !r.Sets["20250101"].Complete {
		t.Errorf("image %+v", r)
	}
}
