package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/provisioner/content"
	"github.com/ingot-metal/ingot/storage"
)

// Images: boot resources in the store, their bytes in the content store. A blob is kept while a row names it; SweepContent removes
// the others. Racks fetch blobs by digest, so a new version never changes what a machine that boots right now reads.

// The file types that an upload may have, and how they are stored.
var uploadTypes = map[string]struct{ filetype, filename string }{
	"tgz": {"root-tgz", "root.tgz"}, "tbz": {"root-tbz", "root.tbz"}, "txz": {"root-txz", "root.txz"}, "tzst": {"root-tzst", "root.tzst"},
	"ddtgz": {"root-dd", "root-dd"}, "ddtbz": {"root-dd.tar.bz2", "root-dd.tar.bz2"}, "ddtxz": {"root-dd.tar.xz", "root-dd.tar.xz"},
	"ddtar": {"root-dd.tar", "root-dd.tar"}, "ddbz2": {"root-dd.bz2", "root-dd.bz2"}, "ddgz": {"root-dd.gz", "root-dd.gz"},
	"ddxz": {"root-dd.xz", "root-dd.xz"}, "ddraw": {"root-dd.raw", "root-dd.raw"}, "squashfs": {"squashfs", "root.squashfs"},
}

// uploadAliases are other spellings of upload types.
var uploadAliases = map[string]string{"": "tgz", "dd.gz": "ddgz", "dd.bz2": "ddbz2", "dd.xz": "ddxz", "dd.raw": "ddraw", "dd.tar": "ddtar", "dd-gz": "ddgz",
	"dd-bz2": "ddbz2", "dd-xz": "ddxz", "dd-raw": "ddraw", "dd-tar": "ddtar", "dd-tgz": "ddtgz", "dd-tbz": "ddtbz", "dd-txz": "ddtxz"}

// operatingSystems are the prefixes that an image's name may have; the value says which kinds of files each takes.
var operatingSystems = map[string]string{
	"ubuntu": "tar squashfs", "debian": "tar squashfs", "centos": "tar", "rhel": "tar", "ol": "tar", "suse": "tar", "windows": "dd", "esxi": "dd",
	"ubuntu-core": "dd", "custom": "tar dd squashfs",
}

// architectures are those that machines have.
var architectures = []string{"amd64", "arm64", "armhf", "i386", "ppc64el", "s390x", "riscv64"}

var (
	imageName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._+-]*$`)
	subarch   = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)
)

// maxImageSize bounds the announced length of an upload: 1 TiB.
const maxImageSize = 1 << 40

// BootResourceView is a resource with its versions; Files is by set id.
type BootResourceView struct {
	storage.BootResource
	Sets  []storage.BootResourceSet
	Files map[int64][]storage.BootResourceFile
}

func loadResource(tx *storage.Tx, id int64) (BootResourceView, error) {
	r, err := tx.BootResource(id)
	if err != nil {
		return BootResourceView{}, found("BootResource", err)
	}
	v := BootResourceView{BootResource: r, Files: map[int64][]storage.BootResourceFile{}}
	if v.Sets, err = tx.BootResourceSets([]int64{id}); err != nil {
		return v, err
	}
	files, err := tx.BootResourceFiles([]int64{id})
	for _, f := range files {
		v.Files[f.SetID] = append(v.Files[f.SetID], f)
	}
	return v, err
}

// BootResources lists resources: "synced", "uploaded" or "all".
func (s *Service) BootResources(ctx context.Context, kind string) (out []storage.BootResource, err error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	if kind != "all" && kind != "synced" && kind != "uploaded" {
		return nil, Errorf(Invalid, "'%s' is not a valid boot resource type. Available types: all, synced, uploaded", kind)
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		all, err := tx.BootResources()
		out = slices.DeleteFunc(all, func(r storage.BootResource) bool {
			return kind == "synced" && r.Rtype != storage.ResourceSynced || kind == "uploaded" && r.Rtype != storage.ResourceUploaded
		})
		return err
	})
	return out, err
}

// BootResource returns a resource with its versions.
func (s *Service) BootResource(ctx context.Context, id int64) (v BootResourceView, err error) {
	if _, err := needUser(ctx); err != nil {
		return v, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		v, err = loadResource(tx, id)
		return err
	})
	return v, err
}

// ImageInput announces an upload.
type ImageInput struct {
	Name         string
	Architecture string
	SHA256       string
	Size         int64
	Title        *string
	Filetype     *string
	BaseImage    *string
	KeepOld      bool
}

// check holds the announcement to the rules and returns the name to store.
func (in *ImageInput) check() (name string, f form) {
	f = form{}
	osystem, series, prefixed := strings.Cut(in.Name, "/")
	if !prefixed {
		osystem, series = "custom", in.Name
	}
	allows, known := operatingSystems[osystem]
	switch {
	case in.Name == "":
		f.add("name", msgRequired)
	case osystem == "ingot":
		f.add("name", "%s is a reserved name", in.Name)
	case !known:
		names := make([]string, 0, len(operatingSystems))
		for n := range operatingSystems {
			names = append(names, n)
		}
		slices.Sort(names)
		f.add("name", "Unsupported operating system %s, supported operating systems: %s", osystem, strings.Join(names, ", "))
	case !imageName.MatchString(series) || len(in.Name) > 255:
		f.add("name", msgInvalid)
	case !prefixed && operatingSystems[series] != "":
		f.add("name", "%s is a reserved name", in.Name)
	}
	if in.Architecture == "" {
		f.add("architecture", msgRequired)
	} else if a, ok := imageArchitecture(in.Architecture); ok {
		in.Architecture = a
	} else {
		f.add("architecture", "'%s' is not a valid architecture.", in.Architecture)
	}
	in.SHA256 = strings.ToLower(in.SHA256)
	if in.SHA256 == "" {
		f.add("sha256", msgRequired)
	} else if !content.ValidDigest(in.SHA256) {
		f.add("sha256", msgInvalid)
	}
	if in.Size < 1 {
		f.add("size", "Ensure this value is greater than or equal to 1.")
	} else if in.Size > maxImageSize {
		f.add("size", "Ensure this value is less than or equal to %d.", int64(maxImageSize))
	}
	kind := deref(in.Filetype, "tgz")
	if alias, ok := uploadAliases[kind]; ok {
		kind = alias
		in.Filetype = &kind
	}
	t, ok := uploadTypes[kind]
	family := "tar"
	switch {
	case !ok:
		f.add("filetype", msgChoice(kind))
	case t.filetype == "squashfs":
		family = "squashfs"
	case strings.HasPrefix(t.filetype, "root-dd"):
		family = "dd"
	}
	if ok && known && !slices.Contains(strings.Fields(allows), family) {
		f.add("filetype", "Invalid file type %s for %s images.", kind, osystem)
	}
	f.text("title", deref(in.Title, ""), 255, nil)
	if b := deref(in.BaseImage, ""); b != "" {
		bos, bseries, ok := strings.Cut(b, "/")
		if !ok || operatingSystems[bos] == "" || !imageName.MatchString(bseries) {
			f.add("base_image", "'%s' is not a valid base image: expected os/series.", b)
		}
	}
	return osystem + "/" + series, f
}

// mirrorName are names that MAAS's mirrors use or may use.
var mirrorName = regexp.MustCompile(`^centos[0-9]{1,2}$`)

// checkReserved refuses the names of what the boot sources offer.
func checkReserved(tx *storage.Tx, name string) error {
	all, err := offers(tx)
	if err != nil {
		return err
	}
	taken := mirrorName.MatchString(name)
	for _, list := range all {
		for _, o := range list {
			taken = taken || name == o.OS || name == o.Release || name == o.OS+"/"+o.Release
		}
	}
	if taken {
		return FieldError("name", "%s is a reserved name", name)
	}
	return nil
}

// imageArchitecture completes amd64 to amd64/generic and checks both parts.
func imageArchitecture(text string) (string, bool) {
	arch, sub, ok := strings.Cut(text, "/")
	if !ok {
		sub = "generic"
	}
	return arch + "/" + sub, slices.Contains(architectures, arch) && subarch.MatchString(sub) && len(sub) <= 64
}

// CreateBootResource announces an upload: a new version of the image of that name and architecture. When the content is stored
// already, the version is complete at once.
func (s *Service) CreateBootResource(ctx context.Context, in ImageInput) (v BootResourceView, err error) {
	if _, err := needPermission(ctx, "can_edit_boot_entities"); err != nil {
		return v, err
	}
	name, f := in.check()
	if len(f) > 0 {
		return v, f.err()
	}
	if s.Content == nil {
		return v, Errorf(Unavailable, "This region has no content store: start it with a data directory.")
	}
	complete := false
	switch size, err := s.Content.Touch(in.SHA256, s.Now()); {
	case err == nil && size != in.Size:
		return v, FieldError("size", "The content with this SHA256 is stored already and has %d bytes.", size)
	case err == nil:
		complete = true
	case !errors.Is(err, fs.ErrNotExist):
		return v, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		if err := checkReserved(tx, in.Name); err != nil {
			return err
		}
		extra := map[string]any{"subarches": strings.SplitN(in.Architecture, "/", 2)[1]}
		if in.Title != nil {
			extra["title"] = *in.Title
		}
		if in.BaseImage != nil && *in.BaseImage != "" {
			extra["base_image"] = *in.BaseImage
		}
		r, err := resourceFor(tx, name, in.Architecture, storage.ResourceUploaded, extra)
		if err != nil {
			return err
		}
		t := uploadTypes[deref(in.Filetype, "tgz")]
		file := storage.BootResourceFile{Filename: t.filename, Filetype: t.filetype, SHA256: in.SHA256, Size: in.Size, Complete: complete}
		if complete {
			file.Uploaded = in.Size
		}
		if _, err := s.addVersion(tx, r.ID, "uploaded", []storage.BootResourceFile{file}, in.KeepOld); err != nil {
			return err
		}
		v, err = loadResource(tx, r.ID)
		return err
	})
	return v, err
}

// resourceFor returns the resource of a name and architecture, made if it is not there.
func resourceFor(tx *storage.Tx, name, arch string, rtype int64, extra map[string]any) (storage.BootResource, error) {
	doc, err := json.Marshal(extra)
	if err != nil {
		return storage.BootResource{}, err
	}
	r, err := tx.BootResourceNamed(name, arch)
	switch {
	case isNotFound(err):
		r = storage.BootResource{Rtype: rtype, Name: name, Architecture: arch, Extra: doc}
		return r, tx.InsertBootResource(&r)
	case err != nil:
		return r, err
	}
	r.Rtype, r.Extra = rtype, doc
	return r, tx.UpdateBootResource(&r)
}

// addVersion adds a set of files to a resource and tells racks when it is complete. Unless keepOld, earlier versions go: at once when
// the new one is complete, else those that never became complete, and the rest once the new one is.
func (s *Service) addVersion(tx *storage.Tx, resourceID int64, label string, files []storage.BootResourceFile, keepOld bool) (storage.BootResourceSet, error) {
	sets, err := tx.BootResourceSets([]int64{resourceID})
	if err != nil {
		return storage.BootResourceSet{}, err
	}
	day := tx.Now().Format("20060102")
	version := day
	for n := 1; slices.ContainsFunc(sets, func(o storage.BootResourceSet) bool { return o.Version == version }); n++ {
		version = day + "." + strconv.Itoa(n)
	}
	set := storage.BootResourceSet{ResourceID: resourceID, Version: version, Label: label}
	if err := tx.InsertBootResourceSet(&set); err != nil {
		return set, err
	}
	complete := true
	for i := range files {
		files[i].SetID = set.ID
		if keepOld {
			files[i].Extra = json.RawMessage(`{"keep_old":true}`)
		}
		complete = complete && files[i].Complete
		if err := tx.InsertBootResourceFile(&files[i]); err != nil {
			return set, err
		}
	}
	if keepOld && !complete {
		return set, nil
	}
	return set, s.dropVersions(tx, resourceID, set.ID, complete && !keepOld)
}

// dropVersions removes the versions of a resource before one: those that are not complete, or all. Racks are told when the set of
// complete versions changed.
func (s *Service) dropVersions(tx *storage.Tx, resourceID, keep int64, all bool) error {
	sets, err := tx.BootResourceSets([]int64{resourceID})
	if err != nil {
		return err
	}
	files, err := tx.BootResourceFiles([]int64{resourceID})
	if err != nil {
		return err
	}
	for _, o := range sets {
		if o.ID >= keep {
			continue
		}
		whole := !slices.ContainsFunc(files, func(f storage.BootResourceFile) bool { return f.SetID == o.ID && !f.Complete })
		if whole && !all {
			continue
		}
		if err := tx.DeleteBootResourceSet(o.ID); err != nil {
			return err
		}
	}
	_, err = tx.Revision()
	return err
}

// UploadChunk takes the next piece of an announced file. The last piece ends the upload: the digest is checked, and racks are told.
func (s *Service) UploadChunk(ctx context.Context, resourceID, fileID int64, body io.Reader) error {
	if _, err := needPermission(ctx, "can_edit_boot_entities"); err != nil {
		return err
	}
	if s.Content == nil {
		return Errorf(Unavailable, "This region has no content store: start it with a data directory.")
	}
	up, err := s.Content.NewUpload(uploadName(fileID))
	if err != nil {
		return err
	}
	release, err := up.Hold()
	if err != nil {
		return Errorf(Conflict, "Another chunk of this file is just being received: send them one after the other.")
	}
	defer release()
	var file storage.BootResourceFile
	var keepOld bool
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		v, err := loadResource(tx, resourceID)
		if err != nil {
			return err
		}
		for _, files := range v.Files {
			for _, f := range files {
				if f.ID == fileID {
					file = f
				}
			}
		}
		if file.ID == 0 {
			return noMatch("BootResourceFile")
		}
		if v.Rtype != storage.ResourceUploaded {
			return Errorf(Forbidden, "Cannot upload to a synced boot resource.")
		}
		keepOld = strings.Contains(string(file.Extra), `"keep_old":true`)
		return nil
	})
	if err != nil {
		return err
	}
	if file.Complete {
		return Errorf(Invalid, "Cannot upload to a complete file.")
	}
	at, err := up.Append(file.Uploaded, body, file.Size-file.Uploaded)
	stored := false
	if errors.Is(err, content.ErrLost) {
		// Perhaps the process ended between the blob's birth and the record of it.
		size, serr := s.Content.Touch(file.SHA256, s.Now())
		if stored = serr == nil && size == file.Size; stored {
			at, err = file.Size, up.Discard()
		}
	}
	if err != nil {
		return s.uploadError(ctx, file, err)
	}
	if at == file.Uploaded {
		return Errorf(Invalid, "Missing data.")
	}
	complete := at == file.Size
	if complete && !stored {
		if err := up.Finish(ctx, file.Size, file.SHA256); err != nil {
			return s.uploadError(ctx, file, err)
		}
	}
	// The bytes are durable. The caller may be gone by now; what it sent counts all the same.
	err = s.DB.Write(context.WithoutCancel(ctx), func(tx *storage.Tx) error {
		if err := tx.AdvanceUpload(file.ID, file.Uploaded, at, complete); err != nil || !complete {
			return err
		}
		return s.dropVersions(tx, resourceID, file.SetID, !keepOld)
	})
	if errors.Is(err, storage.ErrStale) {
		return noMatch("BootResourceFile") // deleted meanwhile
	}
	return err
}

// uploadName is the name of a file's upload in the content store.
func uploadName(fileID int64) string { return "file-" + strconv.FormatInt(fileID, 10) }

// uploadError gives what went wrong with a piece MAAS's text. An upload whose bytes are worthless starts again.
func (s *Service) uploadError(ctx context.Context, file storage.BootResourceFile, err error) error {
	again := func() error {
		return s.DB.Write(context.WithoutCancel(ctx), func(tx *storage.Tx) error {
			if err := tx.AdvanceUpload(file.ID, file.Uploaded, 0, false); !errors.Is(err, storage.ErrStale) {
				return err
			}
			return nil
		})
	}
	answer := &Error{Kind: Invalid, Err: err}
	switch {
	case errors.Is(err, content.ErrTooLong):
		answer.Text = "Too much data received."
	case errors.Is(err, io.ErrUnexpectedEOF):
		answer.Text = "Content-Length doesn't equal size of received data."
	case errors.Is(err, content.ErrNoSpace):
		answer.Text = "No space left on device"
	case errors.Is(err, content.ErrDigest):
		answer.Text = "Saved content does not match given SHA256 value."
		if err := again(); err != nil {
			return err
		}
	case errors.Is(err, content.ErrLost):
		answer.Kind, answer.Text = Unavailable, "The bytes received so far are lost. The upload starts again: send the file from its beginning."
		if err := again(); err != nil {
			return err
		}
	default:
		return err
	}
	return answer
}

// DeleteBootResource removes an image. Its blobs go with the next sweep, unless another image has them too.
func (s *Service) DeleteBootResource(ctx context.Context, id int64) error {
	if _, err := needPermission(ctx, "can_edit_boot_entities"); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		if err := tx.DeleteBootResource(id); err != nil {
			return found("BootResource", err)
		}
		_, err := tx.Revision()
		return err
	})
}

// ImportLocalImage stores files of this machine as the new version of an image: ingot/light, ingot/full and ingot/agent with the
// ephemeral environments' files, or any os/series. files maps a file type (boot-kernel, boot-initrd, squashfs, root-tgz, agent)
// to a path. The same content again changes nothing.
func (s *Service) ImportLocalImage(ctx context.Context, name, arch string, files map[string]string) error {
	if _, err := needPermission(ctx, "can_edit_boot_entities"); err != nil {
		return err
	}
	if s.Content == nil {
		return errors.New("import image: there is no content store")
	}
	arch, ok := imageArchitecture(arch)
	osystem, series, two := strings.Cut(name, "/")
	if !ok || !two || !imageName.MatchString(osystem) || !imageName.MatchString(series) {
		return fmt.Errorf("import image: want os/series and arch/subarch, not %q and %q", name, arch)
	}
	types := make([]string, 0, len(files))
	for t := range files {
		types = append(types, t)
	}
	slices.Sort(types)
	var rows []storage.BootResourceFile
	for _, t := range types {
		filename, ok := localTypes[t]
		if !ok {
			return fmt.Errorf("import image: %q is no file type", t)
		}
		sha, size, err := s.putFile(files[t])
		if err != nil {
			return fmt.Errorf("import image %s: %w", filepath.Base(files[t]), err)
		}
		rows = append(rows, storage.BootResourceFile{Filename: filename, Filetype: t, SHA256: sha, Size: size, Uploaded: size, Complete: true})
	}
	if len(rows) == 0 {
		return errors.New("import image: no files")
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		rtype, label := int64(storage.ResourceSynced), "stable"
		if osystem == "custom" {
			rtype, label = storage.ResourceUploaded, "uploaded"
		}
		r, err := resourceFor(tx, name, arch, rtype, map[string]any{"subarches": strings.SplitN(arch, "/", 2)[1]})
		if err != nil {
			return err
		}
		v, err := loadResource(tx, r.ID)
		if err != nil {
			return err
		}
		if n := len(v.Sets); n > 0 && sameFiles(v.Files[v.Sets[n-1].ID], rows) {
			return nil
		}
		_, err = s.addVersion(tx, r.ID, label, slices.Clone(rows), false)
		return err
	})
}

// localTypes are the file types of ImportLocalImage and the names under which racks serve them.
var localTypes = map[string]string{
	"boot-kernel": "boot-kernel", "boot-initrd": "boot-initrd", "boot-dtb": "boot-dtb", "squashfs": "squashfs", "agent": "ingot-agent",
	"root-tgz": "root.tgz", "root-tbz": "root.tbz", "root-txz": "root.txz", "root-tzst": "root.tzst", "root-dd.raw": "root-dd.raw",
	"root-dd.gz": "root-dd.gz", "root-dd.xz": "root-dd.xz",
}

func (s *Service) putFile(path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	return s.Content.Put(f)
}

func sameFiles(have, want []storage.BootResourceFile) bool {
	if len(have) != len(want) {
		return false
	}
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h storage.BootResourceFile) bool {
			return h.Filetype == w.Filetype && h.Filename == w.Filename && h.SHA256 == w.SHA256 && h.Complete
		}) {
			return false
		}
	}
	return true
}

// OpenContent opens a blob for a rack. A blob that no image names, or that is not here, is NotFound.
func (s *Service) OpenContent(ctx context.Context, sha string) (*os.File, error) {
	if s.Content == nil || !content.ValidDigest(sha) {
		return nil, noMatch("BootResourceFile")
	}
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		files, err := tx.BootResourceFilesWith(sha)
		if err == nil && !slices.ContainsFunc(files, func(f storage.BootResourceFile) bool { return f.Complete }) {
			err = noMatch("BootResourceFile")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	f, err := s.Content.Open(sha)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noMatch("BootResourceFile")
	}
	return f, err
}

// sweepGrace is how long a blob without a row is left alone: an import stores its blobs before it writes their rows.
const sweepGrace = time.Hour

// SweepContent removes blobs and unfinished uploads that no row names any more. Call it every now and then, in one process.
func (s *Service) SweepContent(ctx context.Context) (int, error) {
	if s.Content == nil {
		return 0, nil
	}
	blobs, uploads := map[string]bool{}, map[string]bool{}
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		files, err := tx.BootResourceFiles(nil)
		for _, f := range files {
			blobs[f.SHA256] = true
			if !f.Complete {
				uploads[uploadName(f.ID)] = true
			}
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	// The list above was read before the sweep looks at the clock, so whatever came since is young.
	return s.Content.Sweep(s.Now().Add(-sweepGrace), func(sha string) bool { return blobs[sha] }, func(name string) bool { return uploads[name] })
}
