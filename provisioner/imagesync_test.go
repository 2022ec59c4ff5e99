package provisioner

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/provisioner/jobs"
	"github.com/ingot-metal/ingot/provisioner/simplestreams/streamtest"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// syncSite is a region with a mirror as its only enabled source.
type syncSite struct {
	*testing.T
	s      *Service
	db     *storage.DB
	dir    string
	mirror *streamtest.Mirror
	source storage.BootSource
}

var quickImages = ImageConfig{Parallel: 3, Stall: 300 * time.Millisecond, Piece: 4 << 10, Tries: 2, Pause: time.Millisecond}

func newSyncSite(t *testing.T, db *storage.DB) *syncSite {
	t.Helper()
	dir := t.TempDir()
	x := &syncSite{T: t, s: imageService(t, db, dir), db: db, dir: dir, mirror: streamtest.New(t)}
	x.s.Images = quickImages
	off := false
	if _, err := x.s.UpdateBootSource(adminCtx(t), 1, BootSourceInput{Enabled: &off}); err != nil {
		t.Fatal(err)
	}
	if err := x.s.DeleteBootSourceSelection(adminCtx(t), 1, 1); err != nil {
		t.Fatal(err)
	}
	x.source = x.addSource(x.mirror, "mirror")
	return x
}

func (x *syncSite) addSource(m *streamtest.Mirror, name string) storage.BootSource {
	x.Helper()
	b, err := x.s.CreateBootSource(adminCtx(x.T), BootSourceInput{Name: &name, URL: &m.URL, KeyringData: m.Keyring()})
	if err != nil {
		x.Fatal(err)
	}
	return b
}

func (x *syncSite) selectRelease(source int64, osystem, release string, arches ...string) storage.BootSourceSelection {
	x.Helper()
	sel, err := x.s.CreateBootSourceSelection(adminCtx(x.T), source, SelectionInput{OS: &osystem, Release: &release, Arches: arches, Subarches: []string{"*"}, Labels: []string{"*"}})
	if err != nil {
		x.Fatal(err)
	}
	return sel
}

// runJobs runs a region's jobs until the condition holds.
func runJobs(t *testing.T, s *Service, worker string, until func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = (&jobs.Runner{DB: s.DB, Queues: []string{"region"}, Worker: worker, Handlers: s.JobHandlers(), Poll: 2 * time.Millisecond}).Run(ctx)
	}()
	defer func() { cancel(); <-done }()
	for end := time.Now().Add(40 * time.Second); !until(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the region's jobs do not come so far")
		}
	}
}

func importing(t *testing.T, s *Service) bool {
	t.Helper()
	on, err := s.Importing(adminCtx(t))
	if err != nil {
		t.Fatal(err)
	}
	return on
}

// sync imports and returns what the source's state says was wrong.
func (x *syncSite) sync() string {
	x.Helper()
	if err := x.s.ImportImages(adminCtx(x.T)); err != nil {
		x.Fatal(err)
	}
	runJobs(x.T, x.s, "region-a", func() bool { return !importing(x.T, x.s) })
	var job storage.Job
	x.read(func(tx *storage.Tx) error {
		list, err := tx.Jobs(storage.JobFilter{Kind: imageSyncJob, Limit: 1})
		job = list[0]
		return err
	})
	if job.State != storage.JobDone {
		x.Fatalf("the import is %s: %s", job.State, job.Error)
	}
	return x.problems(x.source.ID)
}

func (x *syncSite) read(fn func(tx *storage.Tx) error) {
	x.Helper()
	if err := x.db.Read(x.Context(), fn); err != nil {
		x.Fatal(err)
	}
}

func (x *syncSite) problems(source int64) (text string) {
	x.read(func(tx *storage.Tx) error {
		states, err := tx.BootSourceStates()
		for _, st := range states {
			if st.SourceID == source {
				text = st.Error
			}
		}
		return err
	})
	return text
}

// images lists the synced versions: "ubuntu/noble amd64/ga-24.04 20250101 100%".
func (x *syncSite) images() []string {
	x.Helper()
	out := []string{}
	list, err := x.s.BootResources(adminCtx(x.T), "synced")
	if err != nil {
		x.Fatal(err)
	}
	for _, r := range list {
		v, err := x.s.BootResource(adminCtx(x.T), r.ID)
		if err != nil {
			x.Fatal(err)
		}
		for _, set := range v.Sets {
			var have, size int64
			for _, f := range v.Files[set.ID] {
				if f.Complete && !x.s.Content.Has(f.SHA256) {
					x.Errorf("%s: the content of %s is not there", v.Name, f.Filename)
				}
				have, size = have+f.Uploaded, size+f.Size
			}
			out = append(out, fmt.Sprintf("%s %s %s %d%%", v.Name, v.Architecture, set.Version, 100*have/size))
		}
	}
	slices.Sort(out)
	return out
}

func (x *syncSite) want(lines ...string) {
	x.Helper()
	if got := x.images(); !slices.Equal(got, lines) {
		x.Errorf("images:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

func has(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in %q", p, text)
		}
	}
}

func TestImageSync(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newSyncSite(t, db)
		m := x.mirror
		m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "20250101", 20_000)
		m.Ubuntu("noble", "24.04", "amd64", "hwe-24.04", "20250101", 20_000)
		m.Ubuntu("noble", "24.04", "arm64", "ga-24.04", "20250101", 20_000)
		m.Ubuntu("jammy", "22.04", "amd64", "ga-22.04", "20241231", 20_000)
		tgz := streamtest.Bytes("centos", 10_000)
		m.Put("centos/root-tgz", tgz)
		m.Add("com.ubuntu.maas:stable:centos-bases-download", "com.ubuntu.maas.stable:centos-bases:8:amd64",
			streamtest.Product{OS: "centos", Release: "centos8", Arch: "amd64", Label: "stable", Title: "CentOS 8"}, "20240101_01",
			map[string]streamtest.Item{"root-tgz": {Ftype: "root-tgz", Path: "centos/root-tgz", SHA256: streamtest.SHA(tgz), Size: 10_000}})
		m.Publish()
		noble := x.selectRelease(x.source.ID, "ubuntu", "noble", "amd64")
		x.selectRelease(x.source.ID, "centos", "centos8", "*")
		if text := x.sync(); text != "" {
			t.Fatal(text)
		}
		x.want("centos/centos8 amd64/generic 20240101_01 100%", "ubuntu/noble amd64/ga-24.04 20250101 100%", "ubuntu/noble amd64/hwe-24.04 20250101 100%")
		if n := m.Requests("noble/amd64/20250101/squashfs"); n != 1 {
			t.Errorf("a file of two images was fetched %d times", n)
		}
		if n := m.Requests("noble/amd64/20250101/squashfs.manifest"); n != 0 {
			t.Error("a manifest was fetched")
		}
		x.read(func(tx *storage.Tx) error {
			kernels, err := tx.Kernels()
			if len(kernels) != 2 || extraString(kernels[0].FileExtra, "kpackage") != "linux-generic" || extraString(kernels[0].Extra, "subarches") != "generic,ga-24.04" {
				t.Errorf("kernels %+v", kernels)
			}
			return err
		})

		// What the source offers is known now, and selections are held to it.
		bad := func(in SelectionInput, text string) {
			t.Helper()
			_, err := x.s.CreateBootSourceSelection(adminCtx(t), x.source.ID, in)
			refused(t, err, Invalid, text)
		}
		ubuntu, lucid, jammy := "ubuntu", "lucid", "jammy"
		bad(SelectionInput{OS: &ubuntu, Release: &lucid}, "OS ubuntu with release lucid has no available images for download")
		bad(SelectionInput{OS: &ubuntu, Release: &jammy, Arches: []string{"s390x"}}, "No available images to download for s390x")

		// The same again asks for nothing but the index.
		x.sync()
		if n := m.Requests("noble/amd64/20250101/ga-24.04/generic/boot-kernel"); n != 1 {
			t.Errorf("a kernel was fetched %d times", n)
		}

		// A new version comes, and one of its files is late: the version before stays until then.
		m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "20250202", 20_000)
		m.Publish()
		late := "noble/amd64/20250202/ga-24.04/generic/boot-initrd"
		m.SetHook(func(w http.ResponseWriter, r *http.Request, path string) bool {
			if path == late {
				http.Error(w, "later", http.StatusServiceUnavailable)
				return true
			}
			return false
		})
		has(t, x.sync(), late, "503 Service Unavailable")
		x.want("centos/centos8 amd64/generic 20240101_01 100%", "ubuntu/noble amd64/ga-24.04 20250101 100%", "ubuntu/noble amd64/ga-24.04 20250202 66%",
			"ubuntu/noble amd64/hwe-24.04 20250101 100%")
		m.SetHook(nil)
		rev := revision(t, db)
		if text := x.sync(); text != "" {
			t.Fatal(text)
		}
		if revision(t, db) == rev {
			t.Error("racks were not told")
		}
		x.want("centos/centos8 amd64/generic 20240101_01 100%", "ubuntu/noble amd64/ga-24.04 20250202 100%", "ubuntu/noble amd64/hwe-24.04 20250101 100%")
		if n := m.Requests("noble/amd64/20250202/squashfs"); n != 1 {
			t.Errorf("what was there already was fetched again: %d times", n)
		}

		// The same version is published with other content.
		kernel := "noble/amd64/20250202/ga-24.04/generic/boot-kernel"
		p := m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "20250202", 20_000)
		anew := streamtest.Bytes("anew", 5000)
		m.Put(kernel, anew)
		items := p.Versions["20250202"]["items"]
		items["boot-kernel"] = streamtest.Item{Ftype: "boot-kernel", Path: kernel, SHA256: streamtest.SHA(anew), Size: 5000}
		m.Publish()
		x.sync()
		x.want("centos/centos8 amd64/generic 20240101_01 100%", "ubuntu/noble amd64/ga-24.04 20250202.1 100%", "ubuntu/noble amd64/hwe-24.04 20250101 100%")

		// A product that the mirror drops stays here; a selection that goes takes its images along.
		m.Remove(streamtest.UbuntuContent, "com.ubuntu.maas.stable:v3:boot:24.04:amd64:hwe-24.04")
		m.Publish()
		x.sync()
		x.want("centos/centos8 amd64/generic 20240101_01 100%", "ubuntu/noble amd64/ga-24.04 20250202.1 100%", "ubuntu/noble amd64/hwe-24.04 20250101 100%")
		if err := x.s.DeleteBootSourceSelection(adminCtx(t), x.source.ID, noble.ID); err != nil {
			t.Fatal(err)
		}
		x.want("centos/centos8 amd64/generic 20240101_01 100%")
		if err := x.s.DeleteBootSource(adminCtx(t), x.source.ID); err != nil {
			t.Fatal(err)
		}
		x.want()
		x.read(func(tx *storage.Tx) error {
			events, err := tx.Events(storage.EventFilter{Limit: 100})
			text := fmt.Sprint(events)
			has(t, text, "REGION_IMPORT_INFO", "REGION_IMPORT_ERROR", late)
			return err
		})
	})
}

func TestImageSyncRefusesWhatIsWrong(t *testing.T) {
	x := newSyncSite(t, storagetest.New(t))
	m := x.mirror
	m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "1", 9000)
	m.Publish()
	x.selectRelease(x.source.ID, "ubuntu", "*")
	if text := x.sync(); text != "" {
		t.Fatal(text)
	}
	spoiled := 0
	spoil := func(release string, change func(i *streamtest.Item)) {
		spoiled++
		p := m.Ubuntu(release, fmt.Sprintf("1.%d", spoiled), "amd64", "ga-1.1", "2", 9000)
		i := p.Versions["2"]["items"]["squashfs"]
		change(&i)
		p.Versions["2"]["items"]["squashfs"] = i
	}
	m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "2", 9000)
	m.Put("noble/amd64/2/squashfs", streamtest.Bytes("other", 9000)) // not what the product file says
	spoil("short", func(i *streamtest.Item) { i.Size += 1000 })
	spoil("long", func(i *streamtest.Item) { i.Size -= 1000 })
	spoil("gone", func(i *streamtest.Item) { i.Path = "gone/nowhere" })
	spoil("climbs", func(i *streamtest.Item) { i.Path = "../../../etc/passwd" })
	spoil("elsewhere", func(i *streamtest.Item) { i.Path = "http://127.0.0.1:1/x" })
	spoil("bomb", func(i *streamtest.Item) { i.Size = 1 << 60 })
	spoil("right", func(*streamtest.Item) {})
	m.Publish()
	text := x.sync()
	has(t, text, "noble/amd64/2/squashfs has not the SHA-256 digest",
		"short/amd64/2/squashfs ends after 9000 bytes, before the size", "long/amd64/2/squashfs has more than the 8000 bytes", "gone/nowhere: the mirror answered 404 Not Found",
		`"../../../etc/passwd" does not stay below the mirror`, `path "http://127.0.0.1:1/x" has an empty element`, "bomb/amd64/2/squashfs has the size")
	got := x.images()
	for _, want := range []string{"ubuntu/noble amd64/ga-24.04 1 100%", "ubuntu/right amd64/ga-1.1 2 100%"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing in %q", want, got)
		}
	}
	for _, line := range got {
		if strings.HasSuffix(line, " 100%") && !strings.Contains(line, "noble amd64/ga-24.04 1 ") && !strings.Contains(line, "right") {
			t.Errorf("%s is complete", line)
		}
	}
	x.read(func(tx *storage.Tx) error {
		images, err := tx.RootImages()
		if len(images) != 2 {
			t.Errorf("deployable images %+v", images)
		}
		return err
	})
	// The mirror is mended.
	m.Put("noble/amd64/2/squashfs", streamtest.Bytes("noble/amd64/2/squashfs", 9000))
	if text = x.sync(); strings.Contains(text, "noble") {
		t.Error(text)
	}
	if !slices.Contains(x.images(), "ubuntu/noble amd64/ga-24.04 2 100%") || slices.Contains(x.images(), "ubuntu/noble amd64/ga-24.04 1 100%") {
		t.Errorf("after it was mended: %q", x.images())
	}
}

func TestImageSyncTrust(t *testing.T) {
	x := newSyncSite(t, storagetest.New(t))
	m := x.mirror
	m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "1", 5000)
	m.Publish()
	x.selectRelease(x.source.ID, "ubuntu", "noble", "amd64")
	good := x.mirror.Keyring()
	update := func(in BootSourceInput) {
		t.Helper()
		if _, err := x.s.UpdateBootSource(adminCtx(t), x.source.ID, in); err != nil {
			t.Fatal(err)
		}
	}
	update(BootSourceInput{KeyringData: streamtest.PublicKey(t, streamtest.NewKey(t))})
	has(t, x.sync(), "cannot be read", "streams/v1/index.sjson", "the signature is not one of the keyring's")
	x.want()
	update(BootSourceInput{KeyringData: []byte("no keyring")})
	has(t, x.sync(), "it is no OpenPGP public keyring")
	none := filepath.Join(t.TempDir(), "none.gpg")
	update(BootSourceInput{KeyringFilename: &none})
	has(t, x.sync(), "none.gpg cannot be read on this region: no such file or directory")
	dev := "/dev/zero"
	update(BootSourceInput{KeyringFilename: &dev})
	has(t, x.sync(), "not a regular file")
	file := filepath.Join(t.TempDir(), "ring.gpg")
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	update(BootSourceInput{KeyringFilename: &file})

	// The index is right, the product file was changed after it was signed.
	products := "streams/v1/" + streamtest.UbuntuContent + ".sjson"
	signed := m.File(products)
	m.Put(products, []byte(strings.Replace(string(signed), "linux-generic", "linux-evil000", 1)))
	has(t, x.sync(), products, "the signature is not one of the keyring's")
	x.want()
	m.Put(products, signed)
	if text := x.sync(); text != "" {
		t.Fatal(text)
	}
	x.want("ubuntu/noble amd64/ga-24.04 1 100%")

	// A source that cannot be read any more keeps what it brought.
	m.SetHook(func(w http.ResponseWriter, r *http.Request, path string) bool {
		http.Error(w, "no", http.StatusForbidden)
		return true
	})
	has(t, x.sync(), "403 Forbidden")
	x.want("ubuntu/noble amd64/ga-24.04 1 100%")
	// Unsigned documents count only where signatures are not to be checked.
	m.SetHook(func(w http.ResponseWriter, r *http.Request, path string) bool {
		if strings.HasSuffix(path, ".sjson") {
			http.NotFound(w, r)
			return true
		}
		return false
	})
	has(t, x.sync(), "404 Not Found")
	skip := true
	update(BootSourceInput{SkipVerification: &skip})
	m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "2", 5000)
	m.Publish()
	if text := x.sync(); text != "" {
		t.Fatal(text)
	}
	x.want("ubuntu/noble amd64/ga-24.04 2 100%")
}

// A server that stalls in the middle of a file is left, and asked for the rest.
func TestImageSyncResumesAfterStall(t *testing.T) {
	x := newSyncSite(t, storagetest.New(t))
	m := x.mirror
	m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "1", 100_000)
	m.Publish()
	x.selectRelease(x.source.ID, "ubuntu", "noble")
	const path = "noble/amd64/1/squashfs"
	release := make(chan struct{})
	defer close(release)
	m.SetHook(func(w http.ResponseWriter, r *http.Request, p string) bool {
		if p != path || r.Header.Get("Range") != "" {
			return false
		}
		data := m.File(path)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:60_000])
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return true
	})
	if text := x.sync(); text != "" {
		t.Fatal(text)
	}
	x.want("ubuntu/noble amd64/ga-24.04 1 100%")
	if got := m.Ranges(path); !slices.Equal(got, []string{"", "bytes=60000-"}) {
		t.Errorf("ranges %q", got)
	}
}

// A server without ranges, and one that breaks off again and again, serve too.
func TestImageSyncFromPoorServers(t *testing.T) {
	x := newSyncSite(t, storagetest.New(t))
	m := x.mirror
	m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "1", 100_000)
	m.Publish()
	x.selectRelease(x.source.ID, "ubuntu", "noble")
	var n atomic.Int64
	m.SetHook(func(w http.ResponseWriter, r *http.Request, p string) bool {
		if !strings.HasPrefix(p, "noble/") {
			return false
		}
		end := min(n.Add(1)*15_000, 100_000)
		data := m.File(p)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:end])
		return true
	})
	if text := x.sync(); text != "" {
		t.Fatal(text)
	}
	x.want("ubuntu/noble amd64/ga-24.04 1 100%")
}

// childSync is the region that TestImageSyncAfterKill kills.
func childSync(t *testing.T, dir string) {
	db, err := storage.Open(t.Context(), "sqlite:"+filepath.Join(dir, "ingot.db"), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := imageService(t, db, filepath.Join(dir, "content"))
	s.Images = quickImages
	_ = (&jobs.Runner{DB: db, Queues: []string{"region"}, Worker: "child", Handlers: s.JobHandlers(), Poll: 2 * time.Millisecond}).Run(t.Context())
}

// A region that is killed in the middle of an import leaves what it has, and the next one goes on from there.
func TestImageSyncAfterKill(t *testing.T) {
	if dir := os.Getenv("IMAGESYNC_TEST_DIR"); dir != "" {
		childSync(t, dir)
		return
	}
	dir := t.TempDir()
	db, err := storage.Open(t.Context(), "sqlite:"+filepath.Join(dir, "ingot.db"), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	x := newSyncSite(t, db)
	x.s = imageService(t, db, filepath.Join(dir, "content"))
	x.s.Images = quickImages
	m := x.mirror
	m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "1", 300_000)
	m.Publish()
	x.selectRelease(x.source.ID, "ubuntu", "noble")
	const path = "noble/amd64/1/squashfs"
	halfway := make(chan struct{})
	m.SetHook(func(w http.ResponseWriter, r *http.Request, p string) bool {
		if p != path {
			return false
		}
		data := m.File(path)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:200_000])
		w.(http.Flusher).Flush()
		close(halfway)
		<-r.Context().Done()
		return true
	})
	if err := x.s.ImportImages(adminCtx(t)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestImageSyncAfterKill$")
	cmd.Env = append(os.Environ(), "IMAGESYNC_TEST_DIR="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	select {
	case <-halfway:
	case <-time.After(30 * time.Second):
		t.Fatal("the region that is to be killed does not begin")
	}
	uploaded := func() (n int64) {
		x.read(func(tx *storage.Tx) error {
			files, err := tx.BootResourceFiles(nil)
			for _, f := range files {
				if f.Filetype == "squashfs" {
					n = f.Uploaded
				}
			}
			return err
		})
		return n
	}
	for end := time.Now().Add(20 * time.Second); uploaded() < 100_000; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no progress is recorded")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	at := uploaded()
	m.SetHook(nil)
	if !importing(t, x.s) {
		t.Fatal("the import ended with its region")
	}
	// Its lease would be over in half a minute.
	if err := db.Write(t.Context(), func(tx *storage.Tx) error {
		_, err := tx.Exec(`update jobs set lease_until = 1 where kind = $1`, imageSyncJob)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	runJobs(t, x.s, "next", func() bool { return !importing(t, x.s) })
	x.want("ubuntu/noble amd64/ga-24.04 1 100%")
	if got, want := m.Ranges(path), fmt.Sprintf("bytes=%d-", at); got[len(got)-1] != want {
		t.Errorf("ranges %q, want the last one to be %s", got, want)
	}
}

// Two regions share a database and the content: each file is fetched once.
func TestImageSyncByTwoRegions(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newSyncSite(t, db)
		m := x.mirror
		for i := range 5 {
			m.Ubuntu(fmt.Sprintf("release%d", i), fmt.Sprintf("%d.04", 20+i), "amd64", "ga-1", "1", 50_000)
		}
		m.Publish()
		x.selectRelease(x.source.ID, "ubuntu", "*", "amd64")
		other := imageService(t, db, x.dir)
		other.Images = quickImages
		for range 3 {
			for _, s := range []*Service{x.s, other} {
				if err := s.ImportImages(adminCtx(t)); err != nil {
					t.Fatal(err)
				}
			}
			runJobs(t, x.s, "a", func() bool {
				runJobs(t, other, "b", func() bool { return !importing(t, other) })
				return !importing(t, x.s)
			})
		}
		if got := x.images(); len(got) != 5 || x.problems(x.source.ID) != "" {
			t.Fatalf("%q %s", got, x.problems(x.source.ID))
		}
		for i := range 5 {
			for _, f := range []string{"ga-1/generic/boot-kernel", "ga-1/generic/boot-initrd", "squashfs"} {
				if path := fmt.Sprintf("release%d/amd64/1/%s", i, f); m.Requests(path) != 1 {
					t.Errorf("%s was fetched %d times", path, m.Requests(path))
				}
			}
		}
	})
}

func TestImageSyncStops(t *testing.T) {
	x := newSyncSite(t, storagetest.New(t))
	m := x.mirror
	m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "1", 200_000)
	m.Publish()
	x.selectRelease(x.source.ID, "ubuntu", "noble")
	const path = "noble/amd64/1/squashfs"
	begun := make(chan struct{}, 1)
	m.SetHook(func(w http.ResponseWriter, r *http.Request, p string) bool {
		if p != path {
			return false
		}
		data := m.File(path)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		for at := 0; at < len(data); at += 8000 { // slower than a second in all
			if _, err := w.Write(data[at:min(at+8000, len(data))]); err != nil {
				return true
			}
			w.(http.Flusher).Flush()
			if at == 80_000 {
				begun <- struct{}{}
			}
			select {
			case <-time.After(60 * time.Millisecond):
			case <-r.Context().Done():
				return true
			}
		}
		return true
	})
	if err := x.s.StopImport(adminCtx(t)); err != nil {
		t.Fatal(err) // there is none, and that is well
	}
	if err := x.s.ImportImages(adminCtx(t)); err != nil {
		t.Fatal(err)
	}
	stopped := false
	runJobs(t, x.s, "a", func() bool {
		select {
		case <-begun:
			if err := x.s.StopImport(adminCtx(t)); err != nil {
				t.Fatal(err)
			}
			stopped = true
		default:
		}
		return stopped
	})
	if importing(t, x.s) {
		t.Error("the import goes on")
	}
	if got := x.images(); len(got) != 1 || strings.HasSuffix(got[0], " 100%") {
		t.Errorf("after the stop: %q", got)
	}
	m.SetHook(nil)
	if text := x.sync(); text != "" {
		t.Fatal(text)
	}
	x.want("ubuntu/noble amd64/ga-24.04 1 100%")
	if got := m.Ranges(path); len(got) != 2 || !strings.HasPrefix(got[1], "bytes=") {
		t.Errorf("the import did not go on where it was stopped: %q", got)
	}
}

// Of two sources the one with the higher priority brings a release; while it cannot be read, nobody takes its place.
func TestImageSyncPriorities(t *testing.T) {
	x := newSyncSite(t, storagetest.New(t))
	low, high := x.mirror, streamtest.New(t)
	low.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "20250909", 5000)
	low.Ubuntu("noble", "24.04", "amd64", "hwe-24.04", "20250909", 5000)
	low.Ubuntu("jammy", "22.04", "amd64", "ga-22.04", "20250909", 5000)
	high.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "20250101", 6000)
	low.Publish()
	high.Publish()
	x.selectRelease(x.source.ID, "ubuntu", "*")
	x.sync()
	x.want("ubuntu/jammy amd64/ga-22.04 20250909 100%", "ubuntu/noble amd64/ga-24.04 20250909 100%", "ubuntu/noble amd64/hwe-24.04 20250909 100%")
	top := x.addSource(high, "high")
	x.selectRelease(top.ID, "ubuntu", "noble")
	if text := x.sync() + x.problems(top.ID); text != "" {
		t.Fatal(text)
	}
	x.want("ubuntu/jammy amd64/ga-22.04 20250909 100%", "ubuntu/noble amd64/ga-24.04 20250101 100%", "ubuntu/noble amd64/hwe-24.04 20250909 100%")
	high.SetHook(func(w http.ResponseWriter, r *http.Request, path string) bool {
		http.Error(w, "no", http.StatusForbidden)
		return true
	})
	x.sync()
	has(t, x.problems(top.ID), "The source high cannot be read", "403")
	x.want("ubuntu/jammy amd64/ga-22.04 20250909 100%", "ubuntu/noble amd64/ga-24.04 20250101 100%", "ubuntu/noble amd64/hwe-24.04 20250909 100%")
	// Without it, the other one's selection still wants the release.
	if err := x.s.DeleteBootSource(adminCtx(t), top.ID); err != nil {
		t.Fatal(err)
	}
	x.want("ubuntu/jammy amd64/ga-22.04 20250909 100%", "ubuntu/noble amd64/ga-24.04 20250101 100%", "ubuntu/noble amd64/hwe-24.04 20250909 100%")
	x.sync()
	x.want("ubuntu/jammy amd64/ga-22.04 20250909 100%", "ubuntu/noble amd64/ga-24.04 20250909 100%", "ubuntu/noble amd64/hwe-24.04 20250909 100%")
}
