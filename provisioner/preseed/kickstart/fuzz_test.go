package kickstart

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/provisioner/preseed/sshkey"
)

// FuzzRender gives people's texts to the emitter and reads them back: what is not refused comes out as it went in.
func FuzzRender(f *testing.F) {
	f.Add("root", "noatime", "/srv/data", "console=ttyS0", "me@home", "drive-0", "seed: {}\n", "bond0", "10.1.0.0/24")
	f.Add(`a "b" \ 'c'`, "x#y", "/a b", "x=\"y z\"", "\u2028%pre", "'$(x)", "%end\nINGOT_FILE\n", "br-0", "::/0")
	f.Add("@DISK0@", "%include /x", "/%end", "`x`", "a\x00b", "a'b", "", "-x", "x")
	f.Fuzz(func(t *testing.T, label, options, path, opts, comment, serial, seed, nic, route string) {
		in := input("centos", "centos9", "flat", "static")
		in.Storage[4].Label, in.Storage[6].Path, in.Storage[6].Options = label, "/", options
		in.Storage[7].Path = path // swap's is not used
		in.Storage[8].Path = path
		d := *in.Storage[0].Disk
		d.Serial = serial
		in.Storage[0].Disk = &d
		in.KernelOpts = opts
		in.SSHKeys = []string{ed + " " + comment}
		in.Seed[0].Content = seed
		in.NICs = append(in.NICs, layout.NIC{Name: nic, MAC: "52:54:00:00:00:99"})
		text, err := Render(in)
		if err != nil {
			return
		}
		doc := parse(t, text)
		if got := len(doc.sections); got != 5 {
			t.Fatalf("%d sections", got)
		}
		find := func(cs []command, words ...string) bool {
			return slices.ContainsFunc(cs, func(c command) bool {
				return !slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(c, w) })
			})
		}
		storage := doc.storageCommands(t)
		root := []string{"part", "/"}
		if label != "" {
			root = append(root, "--label="+label)
		}
		if options != "" && options != "defaults" {
			root = append(root, "--fsoptions="+options)
		}
		if !find(storage, root...) {
			t.Errorf("no command %q in %q", root, storage)
		}
		if opts != "" && !find(storage, "bootloader", "--append="+opts) {
			t.Errorf("no option %q in %q", opts, storage)
		}
		if keys := sshkey.Lines(in.SSHKeys); len(keys) > 0 && !find(doc.commands, "sshkey", asciiKeys(in.SSHKeys)[0]) {
			t.Errorf("no key %q", keys)
		}
		body := strings.Join(doc.sections[3].body, "\n")
		want := base64.StdEncoding.EncodeToString([]byte(seed))
		if !strings.Contains(strings.ReplaceAll(body, "\n", ""), "<<'INGOT_FILE'"+want+"INGOT_FILE") {
			t.Errorf("the seed %q is not in the script", seed)
		}
		for _, l := range doc.sections[1].body {
			if rest, ok := strings.CutPrefix(l, "find_disk "); ok {
				if got := shlex(t, rest); len(got) != 4 || got[1] != strings.TrimSpace(serial) {
					t.Errorf("the serial number %q became %q", serial, got)
				}
			}
		}
	})
}
