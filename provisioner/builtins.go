package provisioner

import (
	"embed"
	"errors"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// scriptFiles are the hardware tests, in MAAS's format and under MAAS's names: clients choose tests by name. A line @NAME@ stands for
// parts/NAME.sh, which several have in common.
//
//go:embed scriptfiles/*.sh scriptfiles/parts/*.sh
var scriptFiles embed.FS

var partLine = regexp.MustCompile(`(?m)^@([a-z-]+)@\n`)

// withParts is a text with its parts in it.
func withParts(text string) (string, error) {
	var err error
	text = partLine.ReplaceAllStringFunc(text, func(line string) string {
		b, rerr := scriptFiles.ReadFile("scriptfiles/parts/" + strings.Trim(line, "@\n") + ".sh")
		err = errors.Join(err, rerr)
		return string(b)
	})
	return text, err
}

// shippedScripts are the texts of all scripts that come with the program.
func shippedScripts() ([]string, error) {
	texts := slices.Clone(builtinScripts)
	names, err := fs.Glob(scriptFiles, "scriptfiles/*.sh")
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		b, err := scriptFiles.ReadFile(n)
		if err != nil {
			return nil, err
		}
		texts = append(texts, string(b))
	}
	for i := range texts {
		if texts[i], err = withParts(texts[i]); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// wantsDistribution tells whether a script wants the full environment: one of a user's, of which nobody knows what it calls, or one of
// ours that needs a package. The light environment has what the others need.
func wantsDistribution(x *storage.Script) bool {
	return !x.IsDefault || slices.Contains([]string{"fio", "7z"}, x.Name)
}
