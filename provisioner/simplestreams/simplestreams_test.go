package simplestreams_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"

	"github.com/ingot-metal/ingot/provisioner/simplestreams"
	"github.com/ingot-metal/ingot/provisioner/simplestreams/streamtest"
)

func TestCleanPath(t *testing.T) {
	for _, p := range []string{"jammy/amd64/20250718/squashfs", "streams/v1/com.ubuntu.maas:stable:v3:download.sjson", "a", "a/..b/c+d~e_1"} {
		if got, err := simplestreams.CleanPath(p); err != nil || got != p {
			t.Errorf("%q: %q, %v", p, got, err)
		}
	}
	for _, p := range []string{"", "/etc/passwd", "../x", "a/../../x", "a/../b", "a/./b", ".", "..", "a//b", "//host/x", "http://host/x", "http:x", "file:/etc/passwd",
		`a\..\b`, "a%2e%2e/b", "a/%2fetc", "a\x00b", "a b", "a\nb", "a?b", "a#b", "a/", "ä", strings.Repeat("a/", 600) + "a", "a;b", "$(x)", "a/..", "mailto:x"} {
		if got, err := simplestreams.CleanPath(p); err == nil {
			t.Errorf("%q was taken as %q", p, got)
		}
	}
}

func TestCompareVersions(t *testing.T) {
	in := []string{"20250718.10", "20240622_01", "20250718", "20231004.0", "20250718.2", "20240622", "9", "20231004.00001"}
	slices.SortFunc(in, simplestreams.CompareVersions)
	want := "9 20231004.0 20231004.00001 20240622 20240622_01 20250718 20250718.2 20250718.10"
	if got := strings.Join(in, " "); got != want {
		t.Errorf("order %s, want %s", got, want)
	}
}

func TestVerify(t *testing.T) {
	key, other := streamtest.NewKey(t), streamtest.NewKey(t)
	body := []byte("{\"a\": 1,\n\"b\": \"- dashes\"\n}\n- dashed\n")
	signed := streamtest.Sign(t, key, body)
	ring, err := simplestreams.ReadKeyring(streamtest.PublicKey(t, key))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	got, err := ring.Verify(signed, now)
	if err != nil {
		t.Fatal(err)
	}
	if norm := strings.ReplaceAll(string(got), "\r\n", "\n"); strings.TrimSpace(norm) != strings.TrimSpace(string(body)) {
		t.Errorf("the signed text is %q", norm)
	}
	otherRing, err := simplestreams.ReadKeyring(streamtest.PublicKey(t, other))
	if err != nil {
		t.Fatal(err)
	}
	both, err := simplestreams.ReadKeyring(append(streamtest.PublicKey(t, other), streamtest.PublicKey(t, key)...))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := both.Verify(signed, now); err != nil {
		t.Errorf("a keyring with two keys: %v", err)
	}
	changed := bytes.Replace(signed, []byte(`"a": 1`), []byte(`"a": 2`), 1)
	for name, c := range map[string]struct {
		ring simplestreams.Keyring
		doc  []byte
		err  error
	}{
		"another key":           {otherRing, signed, simplestreams.ErrUntrusted},
		"no key":                {simplestreams.Keyring{}, signed, simplestreams.ErrUntrusted},
		"changed text":          {ring, changed, simplestreams.ErrUntrusted},
		"text before":           {ring, append([]byte("{\"evil\": 1}\n"), signed...), simplestreams.ErrFormat},
		"text after":            {ring, append(slices.Clone(signed), []byte("{\"evil\": 1}\n")...), simplestreams.ErrFormat},
		"not signed":            {ring, body, simplestreams.ErrFormat},
		"empty":                 {ring, nil, simplestreams.ErrFormat},
		"signed nothing":        {ring, []byte("-----BEGIN PGP SIGNED MESSAGE-----\n\n-----BEGIN PGP SIGNATURE-----"), simplestreams.ErrFormat},
		"cut off":               {ring, signed[:len(signed)/2], simplestreams.ErrFormat},
		"signature of no bytes": {ring, bytes.Replace(signed, []byte("BEGIN PGP SIGNATURE"), []byte("BEGIN PGP MESSAGE"), 1), simplestreams.ErrFormat},
	} {
		if got, err := c.ring.Verify(c.doc, now); !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	var armoured bytes.Buffer
	w, err := armor.Encode(&armoured, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(streamtest.PublicKey(t, key))
	w.Close()
	if ring, err = simplestreams.ReadKeyring(armoured.Bytes()); err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Verify(signed, now); err != nil {
		t.Errorf("with a keyring in armour: %v", err)
	}
	for _, bad := range []string{"", "no keyring", "\x99\x00\x00", strings.Repeat("x", simplestreams.MaxKeyring+1)} {
		if _, err := simplestreams.ReadKeyring([]byte(bad)); err == nil {
			t.Errorf("%.20q was taken as a keyring", bad)
		}
	}
}

// What Ubuntu signs is read with the keyring of Debian's package, where both are.
func TestUbuntuKeyring(t *testing.T) {
	raw, err := os.ReadFile("/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg")
	if err != nil {
		t.Skip("the package ubuntu-cloudimage-keyring is not installed")
	}
	if _, err := simplestreams.ReadKeyring(raw); err != nil {
		t.Error(err)
	}
}

func TestParseIndex(t *testing.T) {
	got, err := simplestreams.ParseIndex([]byte(`{"format": "index:1.0", "updated": "x", "index": {
		"z": {"datatype": "image-ids", "format": "products:1.0", "path": "streams/v1/z.json", "products": ["p"]},
		"a": {"datatype": "image-ids", "format": "products:1.0", "path": "streams/v1/a.json"},
		"ids": {"datatype": "content-download", "format": "products:1.0", "path": "../../x"}}}`))
	if err != nil || len(got) != 2 || got[0].ContentID != "a" || got[1].Path != "streams/v1/z.json" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "null", "[]", `{"format": "products:1.0"}`, `{"format": "index:1.0"} {}`,
		`{"format": "index:1.0", "index": {"a": {"datatype": "image-ids", "format": "products:1.0", "path": "../a"}}}`,
		`{"format": "index:1.0", "index": {"a": {"datatype": ["image-ids"], "format": "products:1.0", "path": "a"}}}`} {
		if got, err := simplestreams.ParseIndex([]byte(bad)); !errors.Is(err, simplestreams.ErrFormat) {
			t.Errorf("%s: %+v, %v", bad, got, err)
		}
	}
}

// products is a product file with one good product and one that a test spoils.
func products(fields, item string) string {
	sha := strings.Repeat("ab", 32)
	if item == "" {
		item = `"size": 5, "sha256": "` + sha + `", "path": "noble/squashfs"`
	}
	return `{"format": "products:1.0", "label": "stable", "products": {
		"good:v3:x": {"os": "centos", "release": "centos8", "arch": "amd64", "versions": {"1": {"items": {"root-tgz": {"ftype": "root-tgz", "size": "7", "sha256": "` +
		strings.ToUpper(sha) + `", "path": "centos8/root-tgz"}}}}},
		"other:v3:x": {` + fields + ` "versions": {"2": {"items": {"squashfs": {` + item + `}}}, "1": {"items": {"squashfs": {"path": "/old"}}}}}}}`
}

const ubuntu = `"os": "ubuntu", "release": "noble", "arch": "amd64", "subarch": "hwe-24.04-edge", "kflavor": "lowlatency", "subarches": "generic, ga-24.04",`

func TestParseProducts(t *testing.T) {
	got, err := simplestreams.ParseProducts([]byte(products(ubuntu, "")))
	if err != nil || len(got.Problems) > 0 || len(got.Products) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	c, u := got.Products[0], got.Products[1]
	if c.Subarch != "generic" || c.Kernel() != "generic" || c.Label != "stable" || c.Items[0].Size != 7 || c.Items[0].SHA256 != strings.Repeat("ab", 32) {
		t.Errorf("centos: %+v", c)
	}
	if u.Kernel() != "hwe-24.04-lowlatency-edge" || u.Version != "2" || !slices.Equal(u.Subarches, []string{"generic", "ga-24.04"}) || u.Items[0].Path != "noble/squashfs" {
		t.Errorf("ubuntu: %+v", u)
	}
	sha := `"sha256": "` + strings.Repeat("ab", 32) + `", `
	for name, c := range map[string][2]string{
		"traversal":         {ubuntu, sha + `"size": 5, "path": "../../../etc/shadow"`},
		"absolute":          {ubuntu, sha + `"size": 5, "path": "/etc/shadow"`},
		"foreign host":      {ubuntu, sha + `"size": 5, "path": "http://169.254.169.254/latest"`},
		"encoded":           {ubuntu, sha + `"size": 5, "path": "a/%2e%2e/b"`},
		"NUL":               {ubuntu, sha + `"size": 5, "path": "a\u0000b"`},
		"backslash":         {ubuntu, sha + `"size": 5, "path": "a\\..\\b"`},
		"no digest":         {ubuntu, `"size": 5, "path": "a"`},
		"bomb":              {ubuntu, sha + `"size": 1e18, "path": "a"`},
		"huge":              {ubuntu, sha + `"size": 999999999999999, "path": "a"`},
		"negative":          {ubuntu, sha + `"size": -5, "path": "a"`},
		"no size":           {ubuntu, sha + `"path": "a"`},
		"list":              {ubuntu, sha + `"size": [5], "path": "a"`},
		"reserved":          {strings.Replace(ubuntu, `"ubuntu"`, `"ingot"`, 1), ""},
		"upload's":          {strings.Replace(ubuntu, `"ubuntu"`, `"custom"`, 1), ""},
		"release with path": {strings.Replace(ubuntu, `"noble"`, `"../x"`, 1), ""},
		"release with dots": {strings.Replace(ubuntu, `"noble"`, `"a..b"`, 1), ""},
		"arch with newline": {strings.Replace(ubuntu, `"amd64"`, `"amd64\nx"`, 1), ""},
		"no arch":           {strings.Replace(ubuntu, `"amd64"`, `""`, 1), ""},
		"flavor":            {strings.Replace(ubuntu, `"lowlatency"`, `"a b"`, 1), ""},
		"package":           {ubuntu, sha + `"size": 5, "path": "a", "ftype": "boot-kernel", "kpackage": "linux; reboot"`},
		"kernel alone":      {ubuntu, sha + `"size": 5, "path": "a", "ftype": "boot-kernel"`},
		"nothing":           {ubuntu, sha + `"size": 5, "path": "a", "ftype": "manifest"`},
	} {
		got, err := simplestreams.ParseProducts([]byte(products(c[0], c[1])))
		if err != nil || len(got.Products) != 1 || got.Products[0].OS != "centos" || len(got.Problems) != 1 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, fields := range map[string]string{"loader": ubuntu + `"bootloader-type": "uefi",`, "newer": ubuntu} {
		doc := products(fields, "")
		if name == "newer" {
			doc = strings.Replace(doc, "other:v3:x", "other:v4:x", 1)
		}
		got, err := simplestreams.ParseProducts([]byte(doc))
		if err != nil || len(got.Products) != 1 || len(got.Problems) != 0 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, bad := range []string{"", "[]", `{"format": "index:1.0"}`, `{"format": "products:1.0", "products": []}`, strings.Repeat("[", 20_000)} {
		if _, err := simplestreams.ParseProducts([]byte(bad)); !errors.Is(err, simplestreams.ErrFormat) {
			t.Errorf("%.40s: %v", bad, err)
		}
	}
}

func FuzzProducts(f *testing.F) {
	f.Add([]byte(products(ubuntu, "")))
	f.Add([]byte(products(ubuntu, `"size": 1e3, "path": "a/../b"`)))
	f.Add([]byte(`{"format": "index:1.0", "index": {"a": {"datatype": "image-ids", "format": "products:1.0", "path": "a"}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if entries, err := simplestreams.ParseIndex(raw); err == nil {
			for _, e := range entries {
				safePath(t, e.Path)
			}
		}
		got, err := simplestreams.ParseProducts(raw)
		if err != nil {
			return
		}
		for _, p := range got.Products {
			for _, w := range []string{p.OS, p.Release, p.Arch, p.Kernel(), p.Label, p.Version} {
				if w == "" || strings.ContainsAny(w, "/\\ \n\x00%") || strings.Contains(w, "..") {
					t.Fatalf("word %q", w)
				}
			}
			if p.OS == "ingot" || p.OS == "custom" || len(p.Items) == 0 {
				t.Fatalf("%+v", p)
			}
			for _, i := range p.Items {
				safePath(t, i.Path)
				if i.Size < 1 || i.Size > simplestreams.MaxItem || len(i.SHA256) != 64 {
					t.Fatalf("%+v", i)
				}
			}
		}
	})
}

func safePath(t *testing.T, p string) {
	if p == "" || p[0] == '/' || strings.ContainsAny(p, "\\%\x00 ?#") || slices.Contains(strings.Split(p, "/"), "..") || strings.Contains(p, "://") {
		t.Fatalf("path %q", p)
	}
}

func FuzzVerify(f *testing.F) {
	key := streamtest.NewKey(f)
	ring, err := simplestreams.ReadKeyring(streamtest.PublicKey(f, key))
	if err != nil {
		f.Fatal(err)
	}
	body := []byte("{\"a\": 1}\n")
	f.Add(streamtest.Sign(f, key, body))
	f.Add([]byte("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{}\n-----BEGIN PGP SIGNATURE-----\n\n=\n-----END PGP SIGNATURE-----\n"))
	f.Add([]byte("-----BEGIN PGP SIGNED MESSAGE-----\n\n-----BEGIN PGP SIGNATURE-----")) // the library's parser panics
	f.Fuzz(func(t *testing.T, doc []byte) {
		got, err := ring.Verify(doc, time.Now())
		if err == nil && strings.TrimSpace(string(got)) != strings.TrimSpace(string(body)) {
			t.Fatalf("a text that nobody signed passed: %q", got)
		}
		_, _ = simplestreams.ReadKeyring(doc) // whatever it is, it does not panic
	})
}
