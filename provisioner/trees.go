package provisioner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ingot-metal/ingot/provisioner/jobs"
	"github.com/ingot-metal/ingot/provisioner/preseed/kickstart"
	"github.com/ingot-metal/ingot/provisioner/simplestreams"
	"github.com/ingot-metal/ingot/storage"
)

// Mirror trees that CentOS and its kin are installed from. A tree's installer, a kernel and an initrd, is imported as the image of its series,
// so that machines are deployed with it as with any other; all else comes from the tree when a machine is installed.

// The states of a tree.
const (
	TreeWaiting = "waiting"
	TreeReady   = "ready"
	TreeFailed  = "failed"
)

// treeFile is the file type of a tree's description, which stands in its image for the root file system.
const treeFile = "install-tree"

// IsTree says whether an image is the installer of a tree.
func IsTree(image storage.Image) bool { return image.Filetype == treeFile }

// TreeInput is what a request says of a tree: nil leaves a field as it is.
type TreeInput struct {
	Name, Architecture, URL      *string
	Repositories, Packages       []string
	Timezone, Language, Keyboard *string
}

// treeArchitectures are those that have such trees, with the names that the trees have for them.
var treeArchitectures = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "ppc64el": "ppc64le"}

const maxTreeList = 200

// treeURL has the characters that boot configurations take in an address.
var treeURL = regexp.MustCompile(`^[A-Za-z0-9._~/%:@,+=\[\]-]+$`)

func (in TreeInput) apply(t *storage.InstallTree) error {
	f := form{}
	t.URL = strings.TrimSpace(deref(in.URL, t.URL))
	t.Timezone, t.Language, t.Keyboard = deref(in.Timezone, t.Timezone), deref(in.Language, t.Language), deref(in.Keyboard, t.Keyboard)
	if in.Repositories != nil {
		t.Repositories = slices.DeleteFunc(slices.Clone(in.Repositories), func(s string) bool { return strings.TrimSpace(s) == "" })
	}
	if in.Packages != nil {
		t.Packages = slices.DeleteFunc(slices.Clone(in.Packages), func(s string) bool { return strings.TrimSpace(s) == "" })
	}
	osystem, series, ok := strings.Cut(t.Name, "/")
	_, release := kickstart.Major(series)
	switch {
	case t.Name == "":
		f.add("name", msgRequired)
	case !ok || kickstart.Systems[osystem] == "" || !imageName.MatchString(series) || len(t.Name) > 100:
		f.add("name", "'%s' is not the name of a tree: expected os/series, with the os one of %s.", firstRunes(t.Name, 80), strings.Join(sortedNames(kickstart.Systems), ", "))
	case !release:
		f.add("name", "'%s' names no release from 7 to 10.", series)
	}
	if treeArchitectures[t.Architecture] == "" {
		f.add("architecture", "'%s' is not a valid architecture. It should be one of: %s.", firstRunes(t.Architecture, 40), strings.Join(sortedNames(treeArchitectures), ", "))
	}
	if u, err := url.Parse(t.URL); t.URL == "" {
		f.add("url", msgRequired)
	} else if err != nil || !webURL(t.URL, "http", "https") || u.User != nil || u.RawQuery != "" || !treeURL.MatchString(t.URL) || kickstart.ValidURL(t.URL) != nil {
		f.add("url", "Enter a valid URL.")
	}
	for _, text := range t.Repositories {
		r, err := treeRepo(text)
		if err == nil {
			err = kickstart.ValidRepo(r)
		}
		if err != nil {
			f.add("repositories", "%s", firstRunes(err.Error(), 300))
		}
	}
	for _, p := range t.Packages {
		if !kickstart.ValidPackage(p) {
			f.add("packages", "'%s' is not a package, group or environment.", firstRunes(p, 60))
		}
	}
	if len(t.Repositories) > maxTreeList || len(t.Packages) > maxTreeList {
		f.add("__all__", "At most %d packages and repositories.", maxTreeList)
	}
	for name, text := range map[string]string{"timezone": t.Timezone, "language": t.Language, "keyboard": t.Keyboard} {
		if len(text) > 64 || strings.HasPrefix(text, "-") || strings.ContainsFunc(text, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@+/-", r)
		}) {
			f.add(name, msgInvalid)
		}
	}
	return f.err()
}

func treeRepo(text string) (kickstart.Repo, error) {
	name, address, ok := strings.Cut(text, "=")
	if !ok {
		return kickstart.Repo{}, fmt.Errorf("%q is not a repository: expected NAME=URL", text)
	}
	return kickstart.Repo{Name: strings.TrimSpace(name), URL: strings.TrimSpace(address)}, nil
}

// InstallTrees lists the trees by name.
func (s *Service) InstallTrees(ctx context.Context) (out []storage.InstallTree, err error) {
	if _, err := needPermission(ctx, "can_view_boot_entities"); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { out, err = tx.InstallTrees(); return err })
	return out, err
}

// InstallTree reads a tree.
func (s *Service) InstallTree(ctx context.Context, id int64) (t storage.InstallTree, err error) {
	if _, err := needPermission(ctx, "can_view_boot_entities"); err != nil {
		return t, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { t, err = tx.InstallTree(id); return found("InstallTree", err) })
	return t, err
}

// CreateInstallTree adds a tree, whose installer is then fetched.
func (s *Service) CreateInstallTree(ctx context.Context, in TreeInput) (t storage.InstallTree, err error) {
	a, err := needPermission(ctx, "can_edit_boot_entities")
	if err != nil {
		return t, err
	}
	if s.Content == nil {
		return t, Errorf(Unavailable, "This region has no content store: start it with a data directory.")
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		t = storage.InstallTree{Name: strings.TrimSpace(deref(in.Name, "")), Architecture: or(deref(in.Architecture, ""), "amd64"), State: TreeWaiting}
		if err := in.apply(&t); err != nil {
			return err
		}
		if _, err := treeResource(tx, &t); err != nil {
			return err
		}
		if err := tx.InsertInstallTree(&t); errors.Is(err, storage.ErrConflict) {
			return FieldError("__all__", "Install tree with this Name and Architecture already exists.")
		} else if err != nil {
			return err
		}
		if err := enqueueTree(tx, &t); err != nil {
			return err
		}
		return s.audit(tx, a, "IMAGES", "Created install tree '%s' for %s.", t.Name, t.Architecture)
	})
	return t, err
}

// UpdateInstallTree changes a tree and has its installer fetched anew.
func (s *Service) UpdateInstallTree(ctx context.Context, id int64, in TreeInput) (t storage.InstallTree, err error) {
	a, err := needPermission(ctx, "can_edit_boot_entities")
	if err != nil {
		return t, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		if t, err = tx.InstallTree(id); err != nil {
			return found("InstallTree", err)
		}
		if err := in.apply(&t); err != nil {
			return err
		}
		t.State, t.Error = TreeWaiting, ""
		if err := tx.UpdateInstallTree(&t); err != nil {
			return err
		}
		if err := enqueueTree(tx, &t); err != nil {
			return err
		}
		return s.audit(tx, a, "IMAGES", "Updated install tree '%s' for %s.", t.Name, t.Architecture)
	})
	return t, err
}

// DeleteInstallTree removes a tree with the image that was made of it. An image of the name that was uploaded later stays.
func (s *Service) DeleteInstallTree(ctx context.Context, id int64) error {
	a, err := needPermission(ctx, "can_edit_boot_entities")
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		t, err := tx.InstallTree(id)
		if err != nil {
			return found("InstallTree", err)
		}
		r, err := treeResource(tx, &t)
		switch {
		case err == nil && r != nil:
			if err := tx.DeleteBootResource(r.ID); err != nil {
				return err
			}
		case err != nil && !isKind(err, Invalid):
			return err
		}
		if err := tx.DeleteInstallTree(id); err != nil {
			return err
		}
		if _, err := tx.Revision(); err != nil {
			return err
		}
		return s.audit(tx, a, "IMAGES", "Deleted install tree '%s' for %s.", t.Name, t.Architecture)
	})
}

// treeResource is the image that was made of a tree; nil when there is none. An image of the name that is something else is an error.
func treeResource(tx *storage.Tx, t *storage.InstallTree) (*storage.BootResource, error) {
	r, err := tx.BootResourceNamed(t.Name, t.Architecture+"/generic")
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v, err := loadResource(tx, r.ID)
	if err != nil {
		return nil, err
	}
	for _, set := range v.Sets {
		if !slices.ContainsFunc(v.Files[set.ID], func(f storage.BootResourceFile) bool { return f.Filetype == treeFile }) {
			return nil, FieldError("name", "There is an image %s for %s already: delete it, or give the tree another name.", t.Name, t.Architecture)
		}
	}
	return &r, nil
}

const treeJob = "install-tree"

// treeTries is how often a mirror is asked, with growing pauses of the queue: minutes at first, then more.
const treeTries = 6

type treeArgs struct {
	ID      int64 `json:"id"`
	Updated int64 `json:"updated"` // of the tree, when the job was ordered: a later change has a job of its own
}

func enqueueTree(tx *storage.Tx, t *storage.InstallTree) error {
	args, err := json.Marshal(treeArgs{t.ID, t.Updated.UnixMicro()})
	if err != nil {
		return err
	}
	key := fmt.Sprintf("%s:%d:%d", treeJob, t.ID, t.Updated.UnixMicro())
	if _, err := tx.EnqueueJob(storage.Job{Kind: treeJob, Queue: "region", UniqueKey: &key, Args: args, MaxAttempts: treeTries}); err != nil {
		return err
	}
	_, err = tx.Revision() // wakes the runners
	return err
}

// runTreeJob fetches a tree's installer.
func (s *Service) runTreeJob(ctx context.Context, j storage.Job) (json.RawMessage, error) {
	var args treeArgs
	if err := json.Unmarshal(j.Args, &args); err != nil {
		return nil, jobs.Final(err)
	}
	var (
		t      storage.InstallTree
		proxy  string
		direct bool
	)
	// current reads the tree, unless it was changed or deleted since: then this job has nothing to do.
	current := func(tx *storage.Tx) (bool, error) {
		var err error
		t, err = tx.InstallTree(args.ID)
		if isNotFound(err) {
			return false, nil
		}
		return err == nil && t.Updated.UnixMicro() == args.Updated, err
	}
	ok := false
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if ok, err = current(tx); err != nil || !ok {
			return err
		}
		proxy, direct, err = s.imageProxy(tx)
		return err
	})
	if err != nil || !ok {
		return nil, err
	}
	rows, failed := s.fetchTree(ctx, &t, proxy, direct)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		if ok, err := current(tx); err != nil || !ok {
			return err
		}
		updated := t.Updated
		if t.State, t.Error = TreeReady, ""; failed == nil {
			if failed = s.saveTree(tx, &t, rows); failed != nil && !isKind(failed, Invalid) {
				return failed
			}
		}
		if failed != nil {
			t.State, t.Error = TreeFailed, firstRunes(failed.Error(), 500)
		}
		return tx.SetInstallTreeState(t.ID, updated, t.ResourceID, t.State, t.Error)
	})
	if err == nil {
		err = failed
		if refusedBy(err) || isKind(err, Invalid) {
			err = jobs.Final(err)
		}
	}
	return nil, err
}

// saveTree makes what was fetched the tree's image.
func (s *Service) saveTree(tx *storage.Tx, t *storage.InstallTree, rows []storage.BootResourceFile) error {
	have, err := treeResource(tx, t)
	if err != nil {
		return err
	}
	r, err := resourceFor(tx, t.Name, t.Architecture+"/generic", storage.ResourceUploaded, map[string]any{"subarches": "generic"})
	if err != nil {
		return err
	}
	t.ResourceID = &r.ID
	if have != nil {
		v, err := loadResource(tx, r.ID)
		if err != nil {
			return err
		}
		if n := len(v.Sets); n > 0 && sameFiles(v.Files[v.Sets[n-1].ID], rows) {
			_, err := tx.Revision() // the tree's address may be another
			return err
		}
	}
	_, err = s.addVersion(tx, r.ID, "tree", slices.Clone(rows), false)
	return err
}

// The bounds of what is taken of a tree.
const (
	maxTreeInfo   = 1 << 20
	maxTreeKernel = 256 << 20
	maxTreeInitrd = 2 << 30
)

// fetchTree brings the description, the kernel and the initrd of a tree into the content store.
func (s *Service) fetchTree(ctx context.Context, t *storage.InstallTree, proxy string, direct bool) ([]storage.BootResourceFile, error) {
	c := s.Images.defaults()
	m, err := openMirror(t.URL, c, proxy, direct)
	if err != nil {
		return nil, err
	}
	defer m.close()
	raw, err := readSmall(ctx, m, c, ".treeinfo", maxTreeInfo)
	if err != nil {
		return nil, fmt.Errorf("the tree's description: %w", err)
	}
	_, series, _ := strings.Cut(t.Name, "/")
	info, err := parseTreeInfo(raw, treeArchitectures[t.Architecture], series)
	if err != nil {
		return nil, refusal{err}
	}
	sha, size, err := s.Content.Put(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	rows := []storage.BootResourceFile{{Filename: "treeinfo", Filetype: treeFile, SHA256: sha, Size: size, Uploaded: size, Complete: true}}
	for _, f := range []struct {
		kind, path string
		limit      int64
	}{{"boot-kernel", info.kernel, maxTreeKernel}, {"boot-initrd", info.initrd, maxTreeInitrd}} {
		sha, size, err := s.fetchTreeFile(ctx, m, c, f.path, info.sums[f.path], f.limit)
		if err != nil {
			return nil, err
		}
		rows = append(rows, storage.BootResourceFile{Filename: f.kind, Filetype: f.kind, SHA256: sha, Size: size, Uploaded: size, Complete: true})
	}
	return rows, nil
}

// fetchTreeFile brings one file, which must have the digest that the description names.
func (s *Service) fetchTreeFile(ctx context.Context, m mirror, c ImageConfig, path, want string, limit int64) (sha string, size int64, err error) {
	if size, err := s.Content.Touch(want, s.Now()); err == nil {
		return want, size, nil
	}
	pause := c.Pause
	for try := 1; ; try++ {
		var body io.ReadCloser
		if body, err = m.open(ctx, path, 0); err == nil {
			h := sha256.New()
			sha, size, err = s.Content.Put(io.TeeReader(io.LimitReader(body, limit+1), h))
			body.Close()
			switch got := hex.EncodeToString(h.Sum(nil)); {
			case err != nil:
			case size > limit:
				err = refusal{fmt.Errorf("%s is larger than %d bytes", path, limit)}
			case got != want:
				err = fmt.Errorf("%s has not the SHA-256 digest that the tree's .treeinfo names", path)
			default:
				return sha, size, nil
			}
		}
		if refusedBy(err) || try >= c.Tries || ctx.Err() != nil {
			return "", 0, err
		}
		if err := sleep(ctx, pause); err != nil {
			return "", 0, err
		}
		pause *= 2
	}
}

// treeInfo is what a tree says of itself.
type treeInfo struct {
	kernel, initrd string
	sums           map[string]string // path → SHA-256
}

// parseTreeInfo reads .treeinfo, which is in the form of Python's configparser, and holds it to what the tree is to be.
func parseTreeInfo(raw []byte, arch, series string) (treeInfo, error) {
	info := treeInfo{sums: map[string]string{}}
	if !utf8.Valid(raw) {
		return info, errors.New(".treeinfo is no text")
	}
	values := map[string]string{} // section.option
	section := ""
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSpace(line)
		if inner, ok := strings.CutPrefix(line, "["); ok {
			section, _, _ = strings.Cut(inner, "]")
			continue
		}
		i := strings.IndexAny(line, "=:")
		if line == "" || line[0] == '#' || line[0] == ';' || i < 0 {
			continue
		}
		// A path of the checksums has no colon and no equals sign in it; the digest behind it has a colon.
		if section == "checksums" {
			i = strings.IndexByte(line, '=')
			if i < 0 {
				continue
			}
		}
		values[section+"."+strings.TrimSpace(line[:i])] = strings.TrimSpace(line[i+1:])
	}
	if a := or(values["general.arch"], values["tree.arch"]); a != arch {
		return info, fmt.Errorf("the tree is for %q, not for %s", firstRunes(a, 40), arch)
	}
	version, want := or(values["general.version"], values["release.version"]), 0
	want, _ = kickstart.Major(series)
	if major, _, _ := strings.Cut(version, "."); major != fmt.Sprint(want) {
		return info, fmt.Errorf("the tree is of version %q, and the series %s is of release %d", firstRunes(version, 40), series, want)
	}
	info.kernel, info.initrd = values["images-"+arch+".kernel"], values["images-"+arch+".initrd"]
	for _, p := range []string{info.kernel, info.initrd} {
		if _, err := simplestreams.CleanPath(p); err != nil {
			return info, fmt.Errorf("the kernel or initrd of .treeinfo: %w", err)
		}
		algorithm, sum, _ := strings.Cut(values["checksums."+p], ":")
		if sum = strings.ToLower(strings.TrimSpace(sum)); algorithm != "sha256" || len(sum) != 64 || strings.Trim(sum, "0123456789abcdef") != "" {
			return info, fmt.Errorf(".treeinfo has no SHA-256 digest of %s", p)
		}
		info.sums[p] = sum
	}
	return info, nil
}
