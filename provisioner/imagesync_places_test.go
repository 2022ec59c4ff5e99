package provisioner

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/provisioner/content"
	"github.com/ingot-metal/ingot/provisioner/simplestreams/streamtest"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// A disk without room keeps the version before.
func TestImageSyncOnFullDisk(t *testing.T) {
	x := newSyncSite(t, storagetest.New(t))
	m := x.mirror
	m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "1", 5000)
	m.Publish()
	x.selectRelease(x.source.ID, "ubuntu", "noble")
	x.sync()
	m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "2", 5000)
	m.Publish()
	x.s.Content.SetFree(func() (int64, error) { return diskReserve + 14_999, nil })
	has(t, x.sync(), "the disk of the region's content is too full", "needs 15000 more bytes", "14999 are free")
	x.want("ubuntu/noble amd64/ga-24.04 1 100%")
	x.s.Content.SetFree(func() (int64, error) { return diskReserve + 15_000, nil })
	if text := x.sync(); text != "" {
		t.Fatal(text)
	}
	x.want("ubuntu/noble amd64/ga-24.04 2 100%")
}

// The same when the disk is full all of a sudden: a real one, of two megabytes.
func TestImageSyncOnDiskThatFills(t *testing.T) {
	x := newSyncSite(t, storagetest.New(t))
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	store, err := content.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	x.s.Content = store
	store.SetFree(func() (int64, error) { return 1 << 40, nil }) // what it was before somebody else filled it
	m := x.mirror
	m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "1", 200_000)
	m.Publish()
	x.selectRelease(x.source.ID, "ubuntu", "noble")
	if text := x.sync(); text != "" {
		t.Fatal(text)
	}
	m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "2", 900_000)
	m.Publish()
	has(t, x.sync(), "The disk of the region's content is full")
	if got := x.images(); !slices.Contains(got, "ubuntu/noble amd64/ga-24.04 1 100%") || slices.Contains(got, "ubuntu/noble amd64/ga-24.04 2 100%") {
		t.Errorf("%q", got)
	}
}

func TestImageSyncFromFolder(t *testing.T) {
	x := newSyncSite(t, storagetest.New(t))
	m := x.mirror
	m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "1", 5000)
	m.Publish()
	top := t.TempDir()
	m.Write(filepath.Join(top, "allowed", "stable"))
	m.Write(filepath.Join(top, "secret"))
	if err := os.Symlink(filepath.Join(top, "secret"), filepath.Join(top, "allowed", "link")); err != nil {
		t.Fatal(err)
	}
	create := func(url string) (storage.BootSource, error) {
		return x.s.CreateBootSource(adminCtx(t), BootSourceInput{URL: &url, KeyringData: m.Keyring()})
	}
	allowed := "file://" + top + "/allowed"
	_, err := create(allowed + "/stable")
	refused(t, err, Invalid, "start it with --image-mirror FOLDER")
	x.s.Images.MirrorDirs = []string{top + "/allowed"}
	for _, bad := range []string{"file://" + top + "/secret", "file://" + top, allowed + "/../secret", allowed + "/%2e%2e/secret", "file:///etc", "file://host/etc", "file:etc",
		allowed + "-not", "file://" + top + "/allowed/x?y"} {
		if _, err := create(bad); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	link, err := create(allowed + "/link")
	if err != nil {
		t.Fatal(err)
	}
	x.selectRelease(link.ID, "ubuntu", "noble")
	x.sync()
	if text := x.problems(link.ID); !strings.Contains(text, "cannot be read") {
		t.Errorf("a symbolic link leads out of the allowed folder: %q %q", text, x.images())
	}
	x.want()
	b, err := create(allowed + "/stable/streams/v1/index.sjson")
	if err != nil {
		t.Fatal(err)
	}
	x.selectRelease(b.ID, "ubuntu", "noble")
	x.sync()
	if text := x.problems(b.ID); text != "" {
		t.Fatal(text)
	}
	x.want("ubuntu/noble amd64/ga-24.04 1 100%")
	// A folder that is allowed no longer is not read any more, and neither is a pipe in it.
	if err := syscall.Mkfifo(filepath.Join(top, "allowed/stable/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := openMirror(allowed+"/stable", x.s.Images, "", false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	if _, err := f.open(t.Context(), "pipe", 0); err == nil {
		t.Error("a pipe was opened")
	}
	r, err := f.open(t.Context(), "noble/amd64/1/squashfs", 4990)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if rest, err := io.ReadAll(r); err != nil || len(rest) != 10 {
		t.Errorf("the rest of a file: %d bytes, %v", len(rest), err)
	}
	x.s.Images.MirrorDirs = nil
	x.sync()
	has(t, x.problems(b.ID), "start it with --image-mirror FOLDER")
	x.want("ubuntu/noble amd64/ga-24.04 1 100%")
}

// What was uploaded is not replaced by what a mirror calls the same, and names of mirrors are reserved.
func TestImageSyncAndUploads(t *testing.T) {
	x := newSyncSite(t, storagetest.New(t))
	announce(t, x.s, ImageInput{Name: "centos/centos8", Architecture: "amd64/generic", SHA256: shaOf([]byte("mine")), Size: 4})
	tgz := streamtest.Bytes("centos", 1000)
	x.mirror.Put("centos/root-tgz", tgz)
	x.mirror.Add("x:y:centos-bases-download", "x:centos-bases:8:amd64", streamtest.Product{OS: "centos", Release: "centos8", Arch: "amd64"}, "1",
		map[string]streamtest.Item{"root-tgz": {Ftype: "root-tgz", Path: "centos/root-tgz", SHA256: streamtest.SHA(tgz), Size: 1000}})
	x.mirror.Publish()
	x.selectRelease(x.source.ID, "centos", "centos8")
	has(t, x.sync(), "centos/centos8 amd64/generic is not imported: an image of this name was uploaded")
	for _, name := range []string{"centos/centos8", "centos8", "centos", "centos77", "ubuntu"} {
		_, err := x.s.CreateBootResource(adminCtx(t), ImageInput{Name: name, Architecture: "amd64", SHA256: shaOf([]byte("mine")), Size: 4})
		refused(t, err, Invalid, name+" is a reserved name")
	}
}

func TestImportWhenDue(t *testing.T) {
	now := time.Now()
	db := storagetest.New(t, storagetest.WithNow(func() time.Time { return now }))
	s := imageService(t, db, t.TempDir())
	due := func(what string, want bool) {
		t.Helper()
		if err := s.ImportWhenDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := importing(t, s); got != want {
			t.Errorf("%s: an import is ordered: %t", what, got)
		}
		if err := s.StopImport(adminCtx(t)); err != nil {
			t.Fatal(err)
		}
	}
	due("a new installation", false)
	name := "mine"
	if _, err := s.UpdateBootSource(adminCtx(t), 1, BootSourceInput{Name: &name}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Second)
	if _, err := s.UpdateBootSource(adminCtx(t), 1, BootSourceInput{Name: &name}); err != nil {
		t.Fatal(err)
	}
	due("a source that somebody changed", true)
	read := func() {
		if err := db.Write(t.Context(), func(tx *storage.Tx) error {
			return tx.SetBootSourceState(storage.BootSourceState{SourceID: 1, Checked: now, Offers: json.RawMessage("[]")})
		}); err != nil {
			t.Fatal(err)
		}
	}
	read()
	due("just read", false)
	now = now.Add(59 * time.Minute)
	due("after 59 minutes", false)
	now = now.Add(2 * time.Minute)
	due("after an hour", true)
	read()
	now = now.Add(time.Minute)
	noble := "noble"
	if _, err := s.UpdateBootSourceSelection(adminCtx(t), 1, 1, SelectionInput{Release: &noble}); err != nil {
		t.Fatal(err)
	}
	due("a changed selection", true)
	if err := s.SetConfig(adminCtx(t), "boot_images_auto_import", "false"); err != nil {
		t.Fatal(err)
	}
	due("switched off", false)
}
