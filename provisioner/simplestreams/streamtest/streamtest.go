// Package streamtest makes image mirrors for tests: signed with a key of their own, served over HTTP on the loopback interface or written
// into a folder, and spoiled as a test wants them. It knows nothing of who reads them.
package streamtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Item is a file of a version as the product file describes it.
type Item struct {
	Ftype    string `json:"ftype"`
	Path     string `json:"path"`
	SHA256   string `json:"sha256"`
	Size     int64  `json:"size"`
	KPackage string `json:"kpackage,omitempty"`
}

// Product is what a product file says of an image.
type Product struct {
	OS        string                                `json:"os"`
	Release   string                                `json:"release"`
	Arch      string                                `json:"arch"`
	Subarch   string                                `json:"subarch,omitempty"`
	Subarches string                                `json:"subarches,omitempty"`
	KFlavor   string                                `json:"kflavor,omitempty"`
	Label     string                                `json:"label,omitempty"`
	Title     string                                `json:"release_title,omitempty"`
	Version   string                                `json:"version,omitempty"`
	Versions  map[string]map[string]map[string]Item `json:"versions"` // version → "items" → key
}

// Mirror is a mirror in memory. Change its maps only through its methods while it is served.
type Mirror struct {
	t      testing.TB
	Signer *openpgp.Entity
	URL    string
	// Hook sees each request for a file before it is answered; when it returns true it has answered it itself.
	Hook func(w http.ResponseWriter, r *http.Request, path string) bool

	mu       sync.Mutex
	files    map[string][]byte
	products map[string]map[string]*Product // content id → name
	requests map[string]int
	ranges   map[string][]string
}

// NewKey makes a key that can sign.
func NewKey(t testing.TB) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity("Test Mirror", "", "mirror@example.com", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA,
		Time: func() time.Time { return time.Now().Add(-time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// PublicKey is a keyring with the key.
func PublicKey(t testing.TB, e *openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := e.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Sign clear-signs a text.
func Sign(t testing.TB, e *openpgp.Entity, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, e.PrivateKey, nil)
	if err == nil {
		if _, err = w.Write(body); err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// New serves an empty mirror with a new key until the test ends.
func New(t testing.TB) *Mirror {
	t.Helper()
	m := &Mirror{t: t, Signer: NewKey(t), files: map[string][]byte{}, products: map[string]map[string]*Product{}, requests: map[string]int{}, ranges: map[string][]string{}}
	srv := httptest.NewServer(m)
	t.Cleanup(srv.Close)
	m.URL = srv.URL
	return m
}

// Keyring is the mirror's public key.
func (m *Mirror) Keyring() []byte { return PublicKey(m.t, m.Signer) }

// ServeHTTP serves the files, with ranges.
func (m *Mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := strings.TrimPrefix(r.URL.Path, "/")
	m.mu.Lock()
	m.requests[p]++
	m.ranges[p] = append(m.ranges[p], r.Header.Get("Range"))
	data, ok := m.files[p]
	hook := m.Hook
	m.mu.Unlock()
	if hook != nil && hook(w, r, p) {
		return
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// Requests says how often a path was asked for.
func (m *Mirror) Requests(path string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.requests[path]
}

// Ranges are the Range headers with which a path was asked for.
func (m *Mirror) Ranges(path string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.ranges[path]...)
}

// SetHook sets Hook.
func (m *Mirror) SetHook(h func(w http.ResponseWriter, r *http.Request, path string) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Hook = h
}

// Put sets a file's bytes, whatever the product files say of it.
func (m *Mirror) Put(path string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[path] = data
}

// File returns a file's bytes.
func (m *Mirror) File(path string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.files[path]
}

// Bytes are n bytes that depend on a name and do not compress.
func Bytes(name string, n int) []byte {
	sum := sha256.Sum256([]byte(name))
	b := make([]byte, n)
	rand.NewChaCha8(sum).Read(b)
	return b
}

// SHA is the digest of bytes.
func SHA(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// UbuntuContent is the content id of Ubuntu's images.
const UbuntuContent = "com.ubuntu.maas:stable:v3:download"

// Ubuntu adds a version of an image of Ubuntu: kernel, initrd and squashfs of a size each. number is the release's, kernel a stream's
// subarchitecture (ga-24.04). It returns the product, whose items a test may spoil before Publish.
func (m *Mirror) Ubuntu(release, number, arch, kernel, version string, size int) *Product {
	name := fmt.Sprintf("com.ubuntu.maas.stable:v3:boot:%s:%s:%s", number, arch, kernel)
	dir := release + "/" + arch + "/" + version + "/"
	items := map[string]Item{}
	add := func(ftype, path, kpackage string) {
		data := Bytes(path, size)
		m.Put(path, data)
		items[ftype] = Item{Ftype: ftype, Path: path, SHA256: SHA(data), Size: int64(len(data)), KPackage: kpackage}
	}
	add("boot-kernel", dir+kernel+"/generic/boot-kernel", "linux-generic")
	add("boot-initrd", dir+kernel+"/generic/boot-initrd", "linux-generic")
	add("squashfs", dir+"squashfs", "")
	m.Put(dir+"squashfs.manifest", []byte("packages\n"))
	items["manifest"] = Item{Ftype: "manifest", Path: dir + "squashfs.manifest", SHA256: SHA([]byte("packages\n")), Size: 9}
	p := Product{OS: "ubuntu", Release: release, Arch: arch, Subarch: kernel, Subarches: "generic," + kernel, KFlavor: "generic", Label: "stable",
		Title: number + " LTS", Version: number}
	return m.Add(UbuntuContent, name, p, version, items)
}

// Add adds a version to a product, which is made when it is not there.
func (m *Mirror) Add(contentID, name string, p Product, version string, items map[string]Item) *Product {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.products[contentID] == nil {
		m.products[contentID] = map[string]*Product{}
	}
	have := m.products[contentID][name]
	if have == nil {
		have = &p
		have.Versions = map[string]map[string]map[string]Item{}
		m.products[contentID][name] = have
	}
	have.Versions[version] = map[string]map[string]Item{"items": items}
	return have
}

// Remove takes a product away.
func (m *Mirror) Remove(contentID, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.products[contentID], name)
}

// Publish writes the index and the product files, signed and plain.
func (m *Mirror) Publish() {
	m.t.Helper()
	index := map[string]any{}
	for id, products := range m.products {
		body, err := json.MarshalIndent(map[string]any{"format": "products:1.0", "content_id": id, "products": products}, "", " ")
		if err != nil {
			m.t.Fatal(err)
		}
		m.Put("streams/v1/"+id+".json", body)
		m.Put("streams/v1/"+id+".sjson", Sign(m.t, m.Signer, body))
		index[id] = map[string]any{"datatype": "image-ids", "format": "products:1.0", "path": "streams/v1/" + id + ".sjson"}
	}
	write := func(name string, sign bool) {
		body, err := json.MarshalIndent(map[string]any{"format": "index:1.0", "index": index}, "", " ")
		if err != nil {
			m.t.Fatal(err)
		}
		if sign {
			body = Sign(m.t, m.Signer, body)
		}
		m.Put(name, body)
	}
	write("streams/v1/index.sjson", true)
	for id := range m.products {
		index[id].(map[string]any)["path"] = "streams/v1/" + id + ".json"
	}
	write("streams/v1/index.json", false)
}

// Write copies the mirror into a folder, for file:// sources.
func (m *Mirror) Write(dir string) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, data := range m.files {
		to := filepath.Join(dir, filepath.FromSlash(p))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			m.t.Fatal(err)
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			m.t.Fatal(err)
		}
	}
}
