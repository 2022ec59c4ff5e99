package simplestreams

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Entry is a product file that an index names.
type Entry struct {
	ContentID string
	Path      string // relative to the root of the mirror
}

// text is a value that mirrors write as a string, a number or a boolean.
type text string

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(raw []byte) error {
	raw = bytes.TrimSpace(raw)
	switch {
	case len(raw) > 0 && raw[0] == '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
		*t = text(s)
	case len(raw) > 0 && (raw[0] == '{' || raw[0] == '['):
		return errors.New("a list or object where a text should be")
	case string(raw) != "null":
		*t = text(raw)
	}
	return nil
}

func decode(raw []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(into); err != nil {
		return badFormat("%v", err)
	}
	if _, err := dec.Token(); err == nil {
		return badFormat("something follows the document")
	}
	return nil
}

// ParseIndex reads an index: the product files of images, in the order of their content ids.
func ParseIndex(raw []byte) ([]Entry, error) {
	var doc struct {
		Format string `json:"format"`
		Index  map[string]struct {
			Datatype text `json:"datatype"`
			Format   text `json:"format"`
			Path     text `json:"path"`
		} `json:"index"`
	}
	if len(raw) > MaxIndex {
		return nil, badFormat("the index is larger than %d bytes", MaxIndex)
	}
	if err := decode(raw, &doc); err != nil {
		return nil, err
	}
	if doc.Format != "index:1.0" {
		return nil, badFormat("format %.40q where index:1.0 should be", doc.Format)
	}
	if len(doc.Index) > maxContents {
		return nil, badFormat("the index has more than %d entries", maxContents)
	}
	out := []Entry{}
	for id, e := range doc.Index {
		if e.Format != "products:1.0" || e.Datatype != "image-ids" {
			continue
		}
		p, err := CleanPath(string(e.Path))
		if err != nil {
			return nil, badFormat("%.100q: %v", id, err)
		}
		out = append(out, Entry{ContentID: id, Path: p})
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.ContentID, b.ContentID) })
	return out, nil
}

// Item is a file of an image.
type Item struct {
	Filetype string // boot-kernel, squashfs, root-tgz, ...
	Path     string // relative to the root of the mirror
	SHA256   string // lower case
	Size     int64
	KPackage string // of boot-kernel: the package that brings this kernel
}

// Product is an image in its newest version.
type Product struct {
	Name      string
	OS        string
	Release   string
	Arch      string
	Subarch   string // as the stream has it: ga-22.04, hwe-22.04-edge, generic
	KFlavor   string // generic, lowlatency; empty without a kernel
	Subarches []string
	Label     string
	Title     string // of the release
	Codename  string
	Number    string // the release's version: 22.04
	EOL       string // end of support, a date
	Rolling   bool
	Platform  string
	Version   string // 20250718
	Items     []Item
}

// Kernel is the part of the image's architecture behind the slash: the stream's subarchitecture with the kernel's flavour.
func (p *Product) Kernel() string {
	if p.KFlavor == "" || p.KFlavor == "generic" {
		return p.Subarch
	}
	if base, edge := strings.CutSuffix(p.Subarch, "-edge"); edge {
		return base + "-" + p.KFlavor + "-edge"
	}
	return p.Subarch + "-" + p.KFlavor
}

// Products is what a product file holds. Problems say, in sentences, which products are not usable and why: they do not spoil the others.
type Products struct {
	Products []Product
	Problems []string
}

type rawItem struct {
	Ftype    text `json:"ftype"`
	Path     text `json:"path"`
	SHA256   text `json:"sha256"`
	Size     text `json:"size"`
	KPackage text `json:"kpackage"`
}

type rawVersion struct {
	Label text               `json:"label"`
	Items map[string]rawItem `json:"items"`
}

type rawProduct struct {
	OS         text                       `json:"os"`
	Release    text                       `json:"release"`
	Arch       text                       `json:"arch"`
	Subarch    text                       `json:"subarch"`
	Subarches  text                       `json:"subarches"`
	KFlavor    text                       `json:"kflavor"`
	Label      text                       `json:"label"`
	Title      text                       `json:"release_title"`
	Codename   text                       `json:"release_codename"`
	Version    text                       `json:"version"`
	SupportEOL text                       `json:"support_eol"`
	Platform   text                       `json:"platform"`
	Rolling    text                       `json:"rolling"`
	Loader     text                       `json:"bootloader-type"`
	Versions   map[string]json.RawMessage `json:"versions"`
}

// generation is the number of the format of Ubuntu's products: what comes after v3 is for programs that are not written yet.
var generation = regexp.MustCompile(`:v([0-9]{1,4})(?:\+[a-z]+)?:`)

var (
	shaDigest = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)
	// Filetypes that images are made of; a manifest and the like are not fetched.
	filetypes = []string{"boot-kernel", "boot-initrd", "boot-dtb", "squashfs", "root-image.gz", "root-tgz", "root-tbz", "root-txz", "root-tzst", "root-dd", "root-dd.tar",
		"root-dd.raw", "root-dd.bz2", "root-dd.gz", "root-dd.xz", "root-dd.tar.bz2", "root-dd.tar.xz"}
	// reserved systems are not a mirror's to bring: the environments and the agent of this program, and what users upload.
	reserved = []string{"ingot", "custom", "bootloader"}
)

// ParseProducts reads a product file. Boot loaders are left out: racks have them from the packages of their distribution.
func ParseProducts(raw []byte) (Products, error) {
	var out Products
	var doc struct {
		Format   string                     `json:"format"`
		Products map[string]json.RawMessage `json:"products"`
	}
	if len(raw) > MaxProducts {
		return out, badFormat("the product file is larger than %d bytes", MaxProducts)
	}
	if err := decode(raw, &doc); err != nil {
		return out, err
	}
	if doc.Format != "products:1.0" {
		return out, badFormat("format %.40q where products:1.0 should be", doc.Format)
	}
	if len(doc.Products) > maxPerFile {
		return out, badFormat("the file has more than %d products", maxPerFile)
	}
	// What is written beside the products holds for each of them that does not say otherwise.
	var common rawProduct
	if err := json.Unmarshal(raw, &common); err != nil {
		return out, badFormat("%v", err)
	}
	names := make([]string, 0, len(doc.Products))
	for n := range doc.Products {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, name := range names {
		p, ok, err := product(name, common, doc.Products[name])
		switch {
		case err != nil:
			out.Problems = append(out.Problems, fmt.Sprintf("The product %.120q is not usable: %v.", name, err))
		case ok:
			out.Products = append(out.Products, p)
		}
	}
	return out, nil
}

// product reads a product; ok is false for one that is not for us.
func product(name string, common rawProduct, doc json.RawMessage) (p Product, ok bool, err error) {
	if !utf8.ValidString(name) || len(name) > 255 {
		return p, false, errors.New("its name is too long")
	}
	if m := generation.FindStringSubmatch(name); m != nil {
		if n, err := strconv.Atoi(m[1]); err != nil || n > 3 {
			return p, false, nil
		}
	}
	r := common
	r.Versions = nil
	if err := json.Unmarshal(doc, &r); err != nil {
		return p, false, err
	}
	if r.Loader != "" {
		return p, false, nil
	}
	p = Product{Name: name, OS: string(r.OS), Release: string(r.Release), Arch: string(r.Arch), Subarch: string(r.Subarch), KFlavor: string(r.KFlavor),
		Title: string(r.Title), Codename: string(r.Codename), Number: string(r.Version), EOL: string(r.SupportEOL), Platform: string(r.Platform),
		Rolling: strings.EqualFold(string(r.Rolling), "true")}
	if p.Subarch == "" {
		p.Subarch = "generic"
	}
	for _, w := range []struct {
		what, value string
		optional    bool
	}{{"os", p.OS, false}, {"release", p.Release, false}, {"arch", p.Arch, false}, {"subarch", p.Subarch, false}, {"kflavor", p.KFlavor, true},
		{"version", p.Number, true}, {"platform", p.Platform, true}} {
		if w.value == "" && w.optional {
			continue
		}
		if !safeWord(w.value) {
			return p, false, fmt.Errorf("its %s is %.60q", w.what, w.value)
		}
	}
	if slices.Contains(reserved, p.OS) {
		return p, false, fmt.Errorf("the operating system %q is reserved", p.OS)
	}
	for _, t := range []*string{&p.Title, &p.Codename, &p.EOL} {
		if !utf8.ValidString(*t) || len(*t) > maxText || strings.ContainsFunc(*t, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			return p, false, errors.New("its title, code name or date is no line of text")
		}
	}
	for _, s := range strings.Split(string(r.Subarches), ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if !safeWord(s) || len(p.Subarches) >= maxSubarches {
			return p, false, fmt.Errorf("its subarches hold %.60q", s)
		}
		p.Subarches = append(p.Subarches, s)
	}
	if len(p.Subarches) == 0 {
		p.Subarches = []string{p.Subarch}
	}
	if len(r.Versions) > maxVersions {
		return p, false, fmt.Errorf("it has more than %d versions", maxVersions)
	}
	for v := range r.Versions {
		if p.Version == "" || CompareVersions(v, p.Version) > 0 {
			p.Version = v
		}
	}
	if p.Version == "" {
		return p, false, nil // nothing was published yet
	}
	if !safeWord(p.Version) {
		return p, false, fmt.Errorf("its newest version is %.60q", p.Version)
	}
	var v rawVersion
	if err := json.Unmarshal(r.Versions[p.Version], &v); err != nil {
		return p, false, err
	}
	if p.Label = string(r.Label); v.Label != "" {
		p.Label = string(v.Label)
	}
	if p.Label == "" {
		p.Label = "stable"
	}
	if !safeWord(p.Label) {
		return p, false, fmt.Errorf("its label is %.60q", p.Label)
	}
	p.Items, err = items(v.Items)
	return p, err == nil, err
}

// items checks the files of a version and leaves out those that nobody boots.
func items(in map[string]rawItem) ([]Item, error) {
	if len(in) > maxItems {
		return nil, fmt.Errorf("a version has more than %d files", maxItems)
	}
	byType := map[string]Item{}
	for key, r := range in {
		ft := string(r.Ftype)
		if ft == "" {
			ft = key
		}
		if !slices.Contains(filetypes, ft) {
			continue
		}
		p, err := CleanPath(string(r.Path))
		if err != nil {
			return nil, err
		}
		size, err := strconv.ParseInt(string(r.Size), 10, 64)
		if err != nil || size < 1 || size > MaxItem {
			return nil, fmt.Errorf("the file %s has the size %.40q, which is not between 1 and %d bytes", p, string(r.Size), int64(MaxItem))
		}
		if !shaDigest.MatchString(string(r.SHA256)) {
			return nil, fmt.Errorf("the file %s has no SHA-256 digest", p)
		}
		kp := string(r.KPackage)
		if kp != "" && !safeWord(kp) {
			return nil, fmt.Errorf("the package of its kernel is %.60q", kp)
		}
		if _, twice := byType[ft]; twice {
			return nil, fmt.Errorf("a version has two files of the type %s", ft)
		}
		byType[ft] = Item{Filetype: ft, Path: p, SHA256: strings.ToLower(string(r.SHA256)), Size: size, KPackage: kp}
	}
	if _, ok := byType["squashfs"]; ok {
		delete(byType, "root-image.gz") // the same, for older programs
	}
	if len(byType) == 0 {
		return nil, errors.New("its newest version has no files that an image is made of")
	}
	if _, k := byType["boot-kernel"]; k {
		if _, i := byType["boot-initrd"]; !i {
			return nil, errors.New("its newest version has a kernel and no initrd")
		}
	}
	out := make([]Item, 0, len(byType))
	for _, ft := range filetypes {
		if i, ok := byType[ft]; ok {
			out = append(out, i)
		}
	}
	return out, nil
}
