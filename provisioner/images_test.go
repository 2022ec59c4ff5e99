package provisioner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ingot-metal/ingot/provisioner/content"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

func imageService(t *testing.T, db *storage.DB, dir string) *Service {
	t.Helper()
	store, err := content.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return New(Config{DB: db, Content: store})
}

func shaOf(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func adminCtx(t *testing.T) context.Context { return WithActor(t.Context(), SystemActor()) }

// announce announces an upload and returns the resource and its newest file.
func announce(t *testing.T, s *Service, in ImageInput) (BootResourceView, storage.BootResourceFile) {
	t.Helper()
	v, err := s.CreateBootResource(adminCtx(t), in)
	if err != nil {
		t.Fatal(err)
	}
	return v, v.Files[v.Sets[len(v.Sets)-1].ID][0]
}

func refused(t *testing.T, err error, k Kind, text string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Kind != k || !strings.Contains(e.Error(), text) {
		t.Errorf("error %v, want kind %d with %q", err, k, text)
	}
}

func TestUpload(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		s, ctx := imageService(t, db, t.TempDir()), adminCtx(t)
		data := bytes.Repeat([]byte("ingot!"), 20_000)
		in := ImageInput{Name: "custom/web", Architecture: "amd64/generic", SHA256: strings.ToUpper(shaOf(data)), Size: int64(len(data))}
		v, f := announce(t, s, in)
		if v.Name != "custom/web" || f.Filetype != "root-tgz" || f.Complete {
			t.Fatalf("announced as %s %+v", v.Name, f)
		}
		refused(t, s.UploadChunk(ctx, v.ID, f.ID, strings.NewReader("")), Invalid, "Missing data.")
		refused(t, s.UploadChunk(ctx, v.ID, 999, strings.NewReader("x")), NotFound, "No BootResourceFile matches")
		refused(t, s.UploadChunk(ctx, 999, f.ID, strings.NewReader("x")), NotFound, "No BootResource matches")
		if err := s.UploadChunk(ctx, v.ID, f.ID, bytes.NewReader(data[:50_000])); err != nil {
			t.Fatal(err)
		}
		cut := io.MultiReader(bytes.NewReader(data[50_000:60_000]), iotest.ErrReader(io.ErrUnexpectedEOF))
		refused(t, s.UploadChunk(ctx, v.ID, f.ID, cut), Invalid, "Content-Length doesn't equal size of received data.")
		refused(t, s.UploadChunk(ctx, v.ID, f.ID, bytes.NewReader(make([]byte, 200_000))), Invalid, "Too much data received.")
		before := revision(t, db)
		if err := s.UploadChunk(ctx, v.ID, f.ID, bytes.NewReader(data[50_000:])); err != nil {
			t.Fatal(err)
		}
		if revision(t, db) == before {
			t.Error("racks were not told of the finished image")
		}
		refused(t, s.UploadChunk(ctx, v.ID, f.ID, strings.NewReader("x")), Invalid, "Cannot upload to a complete file.")
		blob, err := s.OpenContent(ctx, shaOf(data))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(blob)
		blob.Close()
		if err != nil || !bytes.Equal(got, data) {
			t.Fatal("the blob differs from what was uploaded")
		}

		// The same content under another name needs no upload.
		in.Name = "other"
		w, g := announce(t, s, in)
		if w.Name != "custom/other" || !g.Complete {
			t.Errorf("known content: %s %+v", w.Name, g)
		}
		in.Size++
		_, err = s.CreateBootResource(ctx, in)
		refused(t, err, Invalid, "stored already")
	})
}

func revision(t *testing.T, db *storage.DB) (n int64) {
	t.Helper()
	if err := db.Read(t.Context(), func(tx *storage.Tx) (err error) {
		n, err = tx.CurrentRevision()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestUploadWithWrongDigestStartsAgain(t *testing.T) {
	db := storagetest.New(t)
	s, ctx := imageService(t, db, t.TempDir()), adminCtx(t)
	v, f := announce(t, s, ImageInput{Name: "custom/web", Architecture: "amd64", SHA256: shaOf([]byte("right")), Size: 5})
	refused(t, s.UploadChunk(ctx, v.ID, f.ID, strings.NewReader("wrong")), Invalid, "Saved content does not match given SHA256 value.")
	if s.Content.Has(shaOf([]byte("wrong"))) {
		t.Error("the wrong content was kept")
	}
	if err := s.UploadChunk(ctx, v.ID, f.ID, strings.NewReader("right")); err != nil {
		t.Fatal(err)
	}
}

// The region ends at any point of an upload and starts again: what was acknowledged counts.
func TestUploadGoesOnAfterRestart(t *testing.T) {
	db, dir := storagetest.New(t), t.TempDir()
	s, ctx := imageService(t, db, dir), adminCtx(t)
	v, f := announce(t, s, ImageInput{Name: "custom/web", Architecture: "amd64", SHA256: shaOf([]byte("abcdef")), Size: 6})
	if err := s.UploadChunk(ctx, v.ID, f.ID, strings.NewReader("abc")); err != nil {
		t.Fatal(err)
	}
	// It ends after the bytes of the last piece and the birth of the blob, and before the row.
	up, err := s.Content.NewUpload(uploadName(f.ID))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.Append(3, strings.NewReader("def"), 3); err != nil {
		t.Fatal(err)
	}
	s2 := imageService(t, db, dir)
	again, err := s2.Content.NewUpload(uploadName(f.ID))
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Finish(ctx, 6, shaOf([]byte("abcdef"))); err != nil {
		t.Fatal(err)
	}
	s3 := imageService(t, db, dir)
	if err := s3.UploadChunk(ctx, v.ID, f.ID, strings.NewReader("def")); err != nil {
		t.Fatal(err)
	}
	got, err := s3.BootResource(ctx, v.ID)
	if err != nil || !got.Files[got.Sets[0].ID][0].Complete {
		t.Errorf("after the restart: %+v, %v", got.Files, err)
	}
}

func TestNewVersionReplacesOldOnlyWhenComplete(t *testing.T) {
	db := storagetest.New(t)
	s, ctx := imageService(t, db, t.TempDir()), adminCtx(t)
	send := func(text string, keep bool) BootResourceView {
		v, f := announce(t, s, ImageInput{Name: "custom/web", Architecture: "amd64", SHA256: shaOf([]byte(text)), Size: int64(len(text)), KeepOld: keep})
		if err := s.UploadChunk(ctx, v.ID, f.ID, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		v, err := s.BootResource(ctx, v.ID)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := send("one", false); len(v.Sets) != 1 {
		t.Errorf("%d versions", len(v.Sets))
	}
	// Announced only: the old one still deploys.
	v, _ := announce(t, s, ImageInput{Name: "custom/web", Architecture: "amd64", SHA256: shaOf([]byte("never sent")), Size: 10})
	if len(v.Sets) != 2 {
		t.Errorf("%d versions while the new one is incomplete", len(v.Sets))
	}
	if v := send("two", false); len(v.Sets) != 1 || v.Files[v.Sets[0].ID][0].SHA256 != shaOf([]byte("two")) {
		t.Errorf("versions %+v", v.Sets)
	}
	if v := send("three", true); len(v.Sets) != 2 {
		t.Errorf("keep_old left %d versions", len(v.Sets))
	}
}

func TestImageAnnouncements(t *testing.T) {
	s := imageService(t, storagetest.New(t), t.TempDir())
	good := ImageInput{Name: "custom/x", Architecture: "amd64", SHA256: shaOf(nil), Size: 1}
	text := func(s string) *string { return &s }
	for name, c := range map[string]struct {
		change func(*ImageInput)
		field  string
	}{
		"no name":         {func(i *ImageInput) { i.Name = "" }, "name"},
		"own environment": {func(i *ImageInput) { i.Name = "ingot/light" }, "name"},
		"unknown os":      {func(i *ImageInput) { i.Name = "plan9/4" }, "name"},
		"path":            {func(i *ImageInput) { i.Name = "custom/../../etc" }, "name"},
		"os name alone":   {func(i *ImageInput) { i.Name = "ubuntu" }, "name"},
		"architecture":    {func(i *ImageInput) { i.Architecture = "vax" }, "architecture"},
		"subarchitecture": {func(i *ImageInput) { i.Architecture = "amd64/../x" }, "architecture"},
		"digest":          {func(i *ImageInput) { i.SHA256 = "abc" }, "sha256"},
		"size":            {func(i *ImageInput) { i.Size = 0 }, "size"},
		"file type":       {func(i *ImageInput) { i.Filetype = text("zip") }, "filetype"},
		"dd for ubuntu":   {func(i *ImageInput) { i.Name, i.Filetype = "ubuntu/jammy", text("ddraw") }, "filetype"},
		"base image":      {func(i *ImageInput) { i.BaseImage = text("x") }, "base_image"},
	} {
		in := good
		c.change(&in)
		_, err := s.CreateBootResource(adminCtx(t), in)
		var e *Error
		if !errors.As(err, &e) || len(e.Fields) != 1 || e.Fields[c.field] == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := s.CreateBootResource(WithActor(t.Context(), Actor{User: storage.User{ID: 1}}), good)
	refused(t, err, Forbidden, "can_edit_boot_entities")
}

func TestImportLocalImage(t *testing.T) {
	db := storagetest.New(t)
	s, ctx := imageService(t, db, t.TempDir()), adminCtx(t)
	dir := t.TempDir()
	put := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	files := map[string]string{"boot-kernel": put("k", "kernel"), "boot-initrd": put("i", "initrd")}
	imported := func() []storage.ImageFile {
		t.Helper()
		if err := s.ImportLocalImage(ctx, "ingot/light", "amd64", files); err != nil {
			t.Fatal(err)
		}
		var out []storage.ImageFile
		if err := db.Read(ctx, func(tx *storage.Tx) (err error) { out, err = tx.ImageFiles(); return err }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := imported()
	if len(first) != 2 || first[0].Architecture != "amd64/generic" {
		t.Fatalf("imported %+v", first)
	}
	rev := revision(t, db)
	if again := imported(); again[0].SetID != first[0].SetID || revision(t, db) != rev {
		t.Error("the same content made a new version")
	}
	put("i", "initrd two")
	next := imported()
	if len(next) != 2 || next[0].SetID == first[0].SetID || revision(t, db) == rev {
		t.Errorf("new content: %+v", next)
	}
	if err := s.ImportLocalImage(ctx, "ingot/light", "amd64", map[string]string{"boot-kernel": filepath.Join(dir, "missing")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if err := s.ImportLocalImage(ctx, "nonsense", "amd64", files); err == nil {
		t.Error("a name without series was taken")
	}

	// The blob of the old initrd is named by nothing now.
	old := shaOf([]byte("initrd"))
	if n, err := s.SweepContent(ctx); err != nil || n != 0 || !s.Content.Has(old) {
		t.Errorf("a young blob was swept: %d, %v", n, err)
	}
	s.Now = func() time.Time { return time.Now().Add(2 * sweepGrace) }
	if n, err := s.SweepContent(ctx); err != nil || n != 1 || s.Content.Has(old) {
		t.Errorf("SweepContent = %d, %v", n, err)
	}
	if _, err := s.OpenContent(ctx, shaOf([]byte("kernel"))); err != nil {
		t.Errorf("a wanted blob: %v", err)
	}
	_, err := s.OpenContent(ctx, old)
	refused(t, err, NotFound, "No BootResourceFile matches")
}
