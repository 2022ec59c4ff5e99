// Package simplestreams reads the format in which image mirrors describe what they hold: a signed index, the product files that it
// names, and in those each image's versions and files. It decides what of that can be trusted: the signature, and that no name, path,
// size or count is one that would harm whoever acts on it. It does no input or output: fetching and storing are its caller's.
package simplestreams

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// The bounds of what is read. A real index has some kilobytes, a product file of all of Ubuntu some megabytes.
const (
	MaxIndex     = 8 << 20   // bytes of an index
	MaxProducts  = 64 << 20  // bytes of a product file
	MaxItem      = 128 << 30 // bytes of one file of an image
	maxContents  = 200       // entries of an index
	maxPerFile   = 50_000    // products of a product file
	maxVersions  = 2000      // versions of a product
	maxItems     = 200       // files of a version
	maxSubarches = 500
	maxPath      = 1000
	maxText      = 300 // letters of a title
)

// The names that are relative to the root of a mirror.
const (
	SignedIndex = "streams/v1/index.sjson"
	PlainIndex  = "streams/v1/index.json"
)

var (
	// ErrUntrusted says that no key of the keyring has signed the document.
	ErrUntrusted = errors.New("the signature is not one of the keyring's")
	// ErrFormat says that the document is not what it should be.
	ErrFormat = errors.New("not in the simplestreams format")
)

func badFormat(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// word is what may become part of a name, of a path on a rack and of a boot configuration.
var word = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._+-]{0,63}$`)

func safeWord(s string) bool { return word.MatchString(s) && !strings.Contains(s, "..") }

// CleanPath checks a path of an index or a product file: it is relative to the root of the mirror and stays below it. A mirror's
// paths are plain; what is encoded, absolute, of another host, or climbs, is refused rather than repaired.
func CleanPath(p string) (string, error) {
	refuse := func(why string) (string, error) {
		return "", fmt.Errorf("path %.100q %s", p, why)
	}
	switch {
	case p == "":
		return refuse("is empty")
	case len(p) > maxPath:
		return refuse("is too long")
	case strings.HasPrefix(p, "/"):
		return refuse("is absolute")
	case strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return refuse("has a character that is not a printable one of ASCII")
	case strings.ContainsAny(p, `\%?#;*"<>|`+"`$'&"):
		return refuse("has a character that a mirror's path does not need")
	case strings.Contains(p, "//"):
		return refuse("has an empty element")
	case path.Clean(p) != p || p == "." || p == ".." || strings.HasPrefix(p, "../"):
		return refuse("does not stay below the mirror")
	}
	if u, err := url.Parse(p); err != nil || u.IsAbs() || u.Host != "" || u.Path != p {
		return refuse("is a URL")
	}
	return p, nil
}

// CompareVersions orders the versions of a product: 20240622 < 20240622_01 < 20250718.1 < 20250718.10. Digits count as numbers.
func CompareVersions(a, b string) int {
	for a != "" && b != "" {
		da, db := digits(a), digits(b)
		if da > 0 && db > 0 {
			x, y := strings.TrimLeft(a[:da], "0"), strings.TrimLeft(b[:db], "0")
			if len(x) != len(y) {
				return len(x) - len(y)
			}
			if c := strings.Compare(x, y); c != 0 {
				return c
			}
			a, b = a[da:], b[db:]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
