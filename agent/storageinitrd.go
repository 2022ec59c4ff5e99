package agent

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/api"
)

// maxInitrd bounds how much of an unpacked initramfs is looked at.
const maxInitrd = 2 << 30

// initrdNames lists the base names of the files in an initramfs: cpio archives one after the other (microcode comes first), each plain
// or compressed.
func initrdNames(r io.Reader) (map[string]bool, error) {
	names := map[string]bool{}
	br := bufio.NewReaderSize(&io.LimitedReader{R: r, N: maxInitrd}, 64<<10)
	for {
		for { // archives are padded with zeros
			b, err := br.Peek(1)
			if err == io.EOF {
				return names, nil
			}
			if err != nil {
				return nil, err
			}
			if b[0] != 0 {
				break
			}
			_, _ = br.Discard(1)
		}
		m, err := br.Peek(6)
		if err != nil {
			return nil, err
		}
		if !bytes.HasPrefix(m, []byte("07070")) { // the rest is compressed
			z, done, err := decompress(br)
			if err != nil {
				return nil, err
			}
			defer done()
			in := bufio.NewReaderSize(&io.LimitedReader{R: z, N: maxInitrd}, 64<<10)
			if m, err := in.Peek(6); err != nil || !bytes.HasPrefix(m, []byte("07070")) {
				return nil, errors.New("it is compressed in a way that the agent does not know")
			}
			return names, cpioNames(in, names)
		}
		if err := cpioNames(br, names); err != nil {
			return nil, err
		}
	}
}

// cpioNames reads one archive to its end.
func cpioNames(r *bufio.Reader, names map[string]bool) error {
	h := make([]byte, 110)
	for {
		if _, err := io.ReadFull(r, h); err != nil {
			return err
		}
		if !bytes.HasPrefix(h, []byte("07070")) {
			return errors.New("no cpio archive")
		}
		size, err := strconv.ParseUint(string(h[54:62]), 16, 32)
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(string(h[94:102]), 16, 32)
		if err != nil {
			return err
		}
		if n == 0 || n > 4096 {
			return errors.New("no cpio archive")
		}
		name := make([]byte, (110+n+3)/4*4-110)
		if _, err := io.ReadFull(r, name); err != nil {
			return err
		}
		s := string(bytes.TrimRight(name[:n], "\x00"))
		if s == "TRAILER!!!" {
			return nil
		}
		names[path.Base(s)] = true
		if _, err := io.CopyN(io.Discard, r, int64((size+3)/4*4)); err != nil {
			return err
		}
	}
}

// needsInitramfs says whether the image's own initramfs would not find or mount the new root, and why. One that brings what the root
// lies on does: building another takes minutes on a slow machine. Arrays always need a new one, which knows their names.
func (in *installer) needsInitramfs() string {
	p := in.storage
	ks := kernels(rootFS(in.root, "boot"))
	if len(ks) == 0 || ks[0].initrd == "" {
		return "there is none"
	}
	if p.has(api.StorageRAID) {
		return "it does not know the arrays' names"
	}
	root := p.byID[p.mounts["/"].Device]
	want := map[string][]string{}
	if p.under(root.Volume, api.StorageVG) {
		want["lvm"] = []string{"lvm"}
	}
	if p.under(root.Volume, api.StorageBcache) {
		want["bcache"] = []string{"bcache-register"}
		want["bcache's module"] = []string{"bcache.ko"}
	}
	if root.FSType == "xfs" || root.FSType == "btrfs" {
		want[root.FSType] = []string{root.FSType + ".ko"}
	}
	if len(want) == 0 {
		return ""
	}
	f, err := in.root.Open("boot/" + ks[0].initrd)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	names, err := initrdNames(f)
	if err != nil {
		return err.Error()
	}
	builtin, _ := fs.ReadFile(in.root.FS(), "lib/modules/"+ks[0].version+"/modules.builtin")
	for what, files := range want {
		for _, n := range files {
			mod := strings.HasSuffix(n, ".ko")
			if !names[n] && !(mod && (names[n+".xz"] || names[n+".zst"] || names[n+".gz"] || strings.Contains(string(builtin), "/"+n+"\n"))) {
				return "it lacks " + what
			}
		}
	}
	return ""
}
