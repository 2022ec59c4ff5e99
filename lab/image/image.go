// Package image builds what machines boot and what is deployed on them, from Debian packages: the light environment (kernel and an
// initramfs whose init is ingot-agent), the full one (kernel, initrd and a squashfs with cloud-init), and a root file system to deploy.
// Results are cached by what they were made from. The directory it returns holds a manifest for `ingot image import`.
//
// It needs root (mmdebstrap makes device nodes and owners) and a few Debian packages; it uses the host's own apt sources and knows no
// mirror. It does not know the API: importing is the business of its callers.
package image

import (
	"bufio"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"
)

//go:embed files
var files embed.FS

// ManifestName is the file that describes a directory of images.
const ManifestName = "manifest.json"

// Manifest lists the images of a directory.
type Manifest struct {
	Version int    `json:"version"` // 1
	Files   []File `json:"files"`
}

// File is one file of a boot resource. Files with the same name and architecture belong to one resource.
type File struct {
	Name         string `json:"name"`         // ingot/light, ingot/full, ingot/agent, custom/debian-12
	Title        string `json:"title"`        // for people
	Architecture string `json:"architecture"` // amd64/generic
	FileType     string `json:"filetype"`     // boot-kernel, boot-initrd, squashfs, root-tgz, agent
	File         string `json:"file"`         // relative to the manifest
	SHA256       string `json:"sha256"`
	Size         int64  `json:"size"`
}

// Options say what to build and where.
type Options struct {
	// CacheDir keeps results between runs; default $XDG_CACHE_HOME/ingot/images.
	CacheDir string
	// Module is the directory of this Go module, for building the agent; default: found from the working directory.
	Module string
	// Sources are apt source files of the host to install from; default: those of the host that name the release.
	Sources []string
	// Install lets missing tools be installed with apt-get.
	Install bool
	Log     io.Writer
}

// release is the Debian release of the images.
const release = "bookworm"

// tools are the programs that a build calls, with the Debian package of each.
var tools = map[string]string{"mmdebstrap": "mmdebstrap", "mksquashfs": "squashfs-tools", "busybox": "busybox-static", "tar": "tar", "zstd": "zstd"}

// Build makes (or finds in the cache) all images and returns the directory with their manifest.
func Build(ctx context.Context, o Options) (dir string, err error) {
	b := builder{Options: o}
	if b.Log == nil {
		b.Log = io.Discard
	}
	if b.CacheDir == "" {
		c, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		b.CacheDir = filepath.Join(c, "ingot", "images")
	}
	if b.Module == "" {
		if b.Module, err = findModule(); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(b.CacheDir, 0o755); err != nil {
		return "", err
	}
	// one build at a time on a machine
	lock, err := os.OpenFile(filepath.Join(b.CacheDir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if b.tmp, err = os.MkdirTemp(b.CacheDir, "build-"); err != nil {
		return "", err
	}
	defer os.RemoveAll(b.tmp)
	return b.all(ctx)
}

type builder struct {
	Options
	tmp string
}

func (b *builder) logf(format string, args ...any) { fmt.Fprintf(b.Log, format+"\n", args...) }

func findModule() (string, error) {
	d, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == "/" {
			return "", errors.New("not inside the Go module: run from the repository")
		}
	}
}

func (b *builder) all(ctx context.Context) (string, error) {
	treeKey, err := b.treeKey()
	if err != nil {
		return "", err
	}
	base := filepath.Join(b.CacheDir, "debian-12-amd64-"+treeKey)
	if _, err := os.Stat(base); err != nil {
		if err := b.needTools(ctx); err != nil {
			return "", err
		}
		if err := b.base(ctx, base); err != nil {
			return "", fmt.Errorf("Debian images: %w", err)
		}
	} else {
		b.logf("Debian images: cached in %s", base)
	}
	agents := map[string]string{}
	for _, arch := range []string{"amd64", "arm64"} {
		if agents[arch], err = b.agent(ctx, arch); err != nil {
			return "", err
		}
	}
	sum, err := sha256File(agents["amd64"])
	if err != nil {
		return "", err
	}
	arm, err := sha256File(agents["arm64"])
	if err != nil {
		return "", err
	}
	bb, err := exec.LookPath("busybox")
	if err != nil {
		return "", errors.New("busybox is not installed: apt-get install busybox-static")
	}
	out := filepath.Join(b.CacheDir, "set-"+hash(treeKey, sum, arm, embedded("files/light.modules"), lightVersion)[:16])
	defer b.prune(base, out)
	if _, err := os.Stat(filepath.Join(out, ManifestName)); err == nil {
		b.logf("images: cached in %s", out)
		return out, nil
	}
	return out, b.set(base, out, agents, bb)
}

// cacheFor is how long an unused result stays in the cache.
const cacheFor = 14 * 24 * time.Hour

// prune marks what is in use and removes what has not been for long, and leavings of builds that were killed.
func (b *builder) prune(used ...string) {
	now := time.Now()
	for _, d := range used {
		_ = os.Chtimes(d, now, now)
	}
	ents, _ := os.ReadDir(b.CacheDir)
	for _, e := range ents {
		fi, err := e.Info()
		if err != nil || !e.IsDir() || now.Sub(fi.ModTime()) < cacheFor {
			continue
		}
		for _, prefix := range []string{"debian-", "set-", "build-"} {
			if strings.HasPrefix(e.Name(), prefix) {
				_ = os.RemoveAll(filepath.Join(b.CacheDir, e.Name()))
			}
		}
	}
}

// set puts the light initramfs and the agent beside links to the Debian files, and writes the manifest.
func (b *builder) set(base, out string, agents map[string]string, busybox string) error {
	start := time.Now()
	tmp := filepath.Join(b.tmp, "set")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	if err := packLight(filepath.Join(base, "light"), agents["amd64"], busybox, filepath.Join(tmp, "light-initrd")); err != nil {
		return fmt.Errorf("light initramfs: %w", err)
	}
	for _, n := range []string{"vmlinuz", "initrd", "root.squashfs", "root.tgz"} {
		if err := os.Link(filepath.Join(base, n), filepath.Join(tmp, n)); err != nil {
			return err
		}
	}
	for arch, p := range agents {
		if err := copyFile(p, filepath.Join(tmp, "ingot-agent-"+arch), 0o755); err != nil {
			return err
		}
	}
	const amd = "amd64/generic"
	m := Manifest{Version: 1, Files: []File{
		{Name: "ingot/light", Title: "Ingot light environment", Architecture: amd, FileType: "boot-kernel", File: "vmlinuz"},
		{Name: "ingot/light", Title: "Ingot light environment", Architecture: amd, FileType: "boot-initrd", File: "light-initrd"},
		{Name: "ingot/full", Title: "Ingot full environment", Architecture: amd, FileType: "boot-kernel", File: "vmlinuz"},
		{Name: "ingot/full", Title: "Ingot full environment", Architecture: amd, FileType: "boot-initrd", File: "initrd"},
		{Name: "ingot/full", Title: "Ingot full environment", Architecture: amd, FileType: "squashfs", File: "root.squashfs"},
		{Name: "ingot/agent", Title: "Ingot agent", Architecture: amd, FileType: "agent", File: "ingot-agent-amd64"},
		{Name: "ingot/agent", Title: "Ingot agent", Architecture: "arm64/generic", FileType: "agent", File: "ingot-agent-arm64"},
		{Name: "custom/debian-12", Title: "Debian 12", Architecture: amd, FileType: "root-tgz", File: "root.tgz"},
		{Name: "custom/debian-12-squashfs", Title: "Debian 12 (squashfs)", Architecture: amd, FileType: "squashfs", File: "root.squashfs"},
	}}
	for i := range m.Files {
		p := filepath.Join(tmp, m.Files[i].File)
		fi, err := os.Stat(p)
		if err != nil {
			return err
		}
		m.Files[i].Size = fi.Size()
		if m.Files[i].SHA256, err = sha256File(p); err != nil {
			return err
		}
	}
	j, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, ManifestName), append(j, '\n'), 0o644); err != nil {
		return err
	}
	_ = os.RemoveAll(out)
	if err := os.Rename(tmp, out); err != nil {
		return err
	}
	b.logf("images: %s (%.1f s)", out, time.Since(start).Seconds())
	return nil
}

// ReadManifest reads and checks the manifest of a directory: names are plain and every file is there with its size.
func ReadManifest(dir string) (Manifest, error) {
	var m Manifest
	raw, err := os.ReadFile(filepath.Join(dir, ManifestName))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("%s: %w", ManifestName, err)
	}
	if m.Version != 1 {
		return m, fmt.Errorf("%s: version %d is not known", ManifestName, m.Version)
	}
	for _, f := range m.Files {
		if f.File == "" || filepath.Base(f.File) != f.File {
			return m, fmt.Errorf("%s: file name %q", ManifestName, f.File)
		}
		fi, err := os.Stat(filepath.Join(dir, f.File))
		if err != nil {
			return m, err
		}
		if fi.Size() != f.Size {
			return m, fmt.Errorf("%s: %s has %d bytes, not %d", ManifestName, f.File, fi.Size(), f.Size)
		}
	}
	return m, nil
}

func embedded(name string) string {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(err) // compiled in
	}
	return string(b)
}

func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// treeKey covers everything that the Debian tree is made from but the packages' versions: those are as old as the cache.
func (b *builder) treeKey() (string, error) {
	var parts []string
	err := fs.WalkDir(files, "files", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && p != "files/light.modules" {
			parts = append(parts, p, embedded(p))
		}
		return err
	})
	return hash(append(parts, release, baseVersion, lightFilesVersion())...)[:16], err
}

// baseVersion changes when base() makes something else from the same tree.
const baseVersion = "4"

func (b *builder) needTools(ctx context.Context) error {
	missing := map[string]bool{}
	for t, pkg := range tools {
		if _, err := exec.LookPath(t); err != nil {
			missing[pkg] = true
		}
	}
	var pkgs []string
	for p := range missing {
		pkgs = append(pkgs, p)
	}
	sort.Strings(pkgs)
	if os.Geteuid() != 0 {
		return fmt.Errorf("building images needs root; run `sudo make image`%s", strings.TrimRight(" (it will install "+strings.Join(pkgs, " ")+")", " (it will install )"))
	}
	if len(pkgs) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil || !b.Install {
		return fmt.Errorf("missing packages: apt-get install %s", strings.Join(pkgs, " "))
	}
	b.logf("installing %s", strings.Join(pkgs, " "))
	if err := b.run(ctx, "apt-get", "-q", "update"); err != nil {
		return err
	}
	return b.run(ctx, "apt-get", append([]string{"-q", "-y", "install", "--no-install-recommends"}, pkgs...)...)
}

func (b *builder) run(ctx context.Context, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	var tail strings.Builder
	pr, pw := io.Pipe()
	c.Stdout, c.Stderr = pw, pw
	done := make(chan struct{})
	go func() {
		defer close(done)
		s := bufio.NewScanner(pr)
		s.Buffer(nil, 1<<20)
		var last []string
		for s.Scan() {
			fmt.Fprintln(b.Log, "  "+s.Text())
			if last = append(last, s.Text()); len(last) > 15 {
				last = last[1:]
			}
		}
		tail.WriteString(strings.Join(last, "\n"))
		_, _ = io.Copy(io.Discard, pr)
	}()
	err := c.Run()
	pw.Close()
	<-done
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, tail.String())
	}
	return nil
}

// hostSources are the host's apt source files that name the release. None: mmdebstrap has its own default.
func hostSources() []string {
	names, _ := filepath.Glob("/etc/apt/sources.list.d/*")
	var out []string
	for _, n := range append([]string{"/etc/apt/sources.list"}, names...) {
		b, err := os.ReadFile(n)
		if err == nil && strings.Contains(string(b), release) && (strings.HasSuffix(n, ".list") || strings.HasSuffix(n, ".sources")) {
			out = append(out, n)
		}
	}
	return out
}

// base makes the Debian tree and everything that only depends on it.
func (b *builder) base(ctx context.Context, out string) error {
	start := time.Now()
	src := filepath.Join(b.tmp, "files")
	ents, err := files.ReadDir("files")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(src, 0o755); err != nil {
		return err
	}
	for _, e := range ents {
		if err := os.WriteFile(filepath.Join(src, e.Name()), []byte(embedded("files/"+e.Name())), 0o755); err != nil {
			return err
		}
	}
	sources := b.Sources
	if len(sources) == 0 {
		sources = hostSources()
	}
	root := filepath.Join(b.tmp, "root")
	b.logf("Debian images: building (about two minutes)")
	if err := b.run(ctx, "bash", append([]string{filepath.Join(src, "rootfs.sh"), root, src}, sources...)...); err != nil {
		return err
	}
	b.logf("root tree: %.0f s", time.Since(start).Seconds())
	tmp := filepath.Join(b.tmp, "base")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	for _, x := range [][2]string{{"boot/vmlinuz-*", "vmlinuz"}, {"boot/initrd.img-*", "initrd"}} {
		m, _ := filepath.Glob(filepath.Join(root, x[0]))
		if len(m) != 1 {
			return fmt.Errorf("the tree has %d files %s", len(m), x[0])
		}
		if err := copyFile(m[0], filepath.Join(tmp, x[1]), 0o644); err != nil {
			return err
		}
	}
	if err := collectLight(root, filepath.Join(tmp, "light")); err != nil {
		return fmt.Errorf("light files: %w", err)
	}
	if err := b.run(ctx, "mksquashfs", root, filepath.Join(tmp, "root.squashfs"), "-comp", "zstd", "-Xcompression-level", "6", "-noappend", "-quiet", "-no-progress"); err != nil {
		return err
	}
	if err := b.tarball(ctx, root, filepath.Join(tmp, "root.tgz")); err != nil {
		return err
	}
	if err := os.Rename(tmp, out); err != nil {
		return err
	}
	b.logf("Debian images: %s (%.0f s)", out, time.Since(start).Seconds())
	return nil
}

// tarball packs the tree with owners and extended attributes. tar reads it, since it knows every kind of file; gzip is ours.
func (b *builder) tarball(ctx context.Context, root, out string) (err error) {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, "tar", "-C", root, "--numeric-owner", "--xattrs", "--xattrs-include=*", "--sort=name", "--format=pax", "-cf", "-", ".")
	var stderr strings.Builder
	c.Stdout, c.Stderr = z, &stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("tar: %w: %s", err, stderr.String())
	}
	return z.Close()
}

// agent builds ingot-agent for an architecture. The Go build cache makes this quick.
func (b *builder) agent(ctx context.Context, arch string) (string, error) {
	out := filepath.Join(b.tmp, "ingot-agent-"+arch)
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "./cmd/ingot-agent")
	c.Dir = b.Module
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if msg, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build ingot-agent for %s: %w\n%s", arch, err, msg)
	}
	return out, nil
}

func sha256File(p string) (string, error) {
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}
