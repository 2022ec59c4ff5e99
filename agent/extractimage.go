package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// rootForms are what may follow "root-" or "root." in the type of an image that is a packed root file system.
var rootForms = map[string]bool{"tgz": true, "tbz": true, "txz": true, "tzst": true, "tar": true, "tar.gz": true, "tar.bz2": true, "tar.xz": true, "tar.zst": true, "image.gz": false}

func rootArchive(typ string) bool {
	return rootForms[strings.TrimLeft(strings.TrimPrefix(typ, "root"), "-.")]
}

// extract fills the new root from the image, verified by its SHA-256.
func (in *installer) extract(ctx context.Context) error {
	img := in.plan.Image
	if img.Type != "squashfs" && !rootArchive(img.Type) {
		return fmt.Errorf("image type %q is not supported", img.Type)
	}
	u, err := imageURL(in.configURL, img)
	if err != nil {
		return err
	}
	d, err := newDownload(ctx, in.client, u, img, in.rep.Logf)
	if err != nil {
		return err
	}
	defer d.Close()
	in.rep.Logf("fetching %s (%s, %d MiB)", u, img.Type, img.Size/mib)
	stop := in.tellDownload(d, img.Size)
	defer stop()
	if img.Type == "squashfs" {
		return in.unsquash(ctx, d, img.Size)
	}
	room, err := in.room()
	if err != nil {
		return err
	}
	s, err := openStream(ctx, d, false)
	if err != nil {
		return err
	}
	defer s.close()
	s.ahead()
	if err := extractTar(s, in.root, room, nil); err != nil {
		return err
	}
	return s.finish() // what follows the archive's end belongs to the digest as well
}

// room is how much the new root can hold.
func (in *installer) room() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(in.mountAt, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// unsquash stores the image in the new root (memory may be small), verifies it, looks through its tree, and unpacks it from there.
func (in *installer) unsquash(ctx context.Context, d io.Reader, size int64) error {
	room, err := in.room()
	if err != nil {
		return err
	}
	if size > room {
		return fmt.Errorf("the image has %d MiB, and there is room for %d", size/mib, room/mib)
	}
	name := ".ingot-" + newUUID() + ".squashfs" // nothing in the image can be called that
	f, err := in.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer in.root.Remove(name)
	defer f.Close()
	a := newReadAhead(d)
	n, err := io.Copy(f, a)
	a.Close()
	if err != nil {
		return err
	}
	facts, err := inspectSquash(f, n, room-n)
	switch {
	case errors.Is(err, errSquashCompression):
		in.rep.Logf("the squashfs is of a compression that only unsquashfs knows: it is not looked through before")
	case err != nil:
		return err
	default:
		in.rep.Logf("the squashfs has %d entries, %d MiB unpacked", facts.entries, facts.bytes/mib)
	}
	return in.cmd.run(ctx, "unsquashfs", "-n", "-q", "-f", "-da", "64", "-fr", "64", "-d", in.mountAt, filepath.Join(in.mountAt, name))
}
