package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/ingot-metal/ingot/lab/image"
	"github.com/ingot-metal/ingot/provisioner"
)

func imageCommand(g *globals) *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "Build and import what machines boot and what is deployed on them"}
	c.AddCommand(imageImportCommand(g), imageBuildCommand(g), imageLabCommand(g))
	return c
}

func imageImportCommand(g *globals) *cobra.Command {
	var sf storeFlags
	c := &cobra.Command{
		Use:   "import FOLDER",
		Short: "Import a folder of images, as image build writes it (manifest.json)",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd.Context(), g, sf, func(ctx context.Context, s *store) error {
				names, err := importImages(ctx, s, args[0], nil)
				for _, n := range names {
					fmt.Fprintf(g.stdout, "imported %s\n", n)
				}
				return err
			})
		},
	}
	sf.add(c)
	return c
}

func imageBuildCommand(g *globals) *cobra.Command {
	var cache, out string
	c := &cobra.Command{
		Use:   "build [debian]",
		Short: "Build the ephemeral environments and a deployable root image from Debian packages (root, inside the repository)",
		Long: "Build makes, without any mirror of images, what a first machine needs: the ephemeral environments ingot/light and ingot/full, the agents, and " +
			"custom/debian-12 to deploy. It takes the packages from where this system takes its own, and prints the folder for `ingot image import`.",
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"debian"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := image.Build(cmd.Context(), image.Options{CacheDir: cache, Install: os.Getuid() == 0, Log: g.stderr})
			if err != nil {
				return err
			}
			if out != "" {
				// A link, not a copy: the cache keeps the files and the next build replaces the link.
				tmp := out + ".new"
				if err := os.RemoveAll(tmp); err != nil {
					return err
				}
				if err := os.Symlink(dir, tmp); err != nil {
					return err
				}
				if err := os.Rename(tmp, out); err != nil {
					return fmt.Errorf("%s: %w", out, err)
				}
			}
			_, err = fmt.Fprintln(g.stdout, dir)
			return err
		},
	}
	c.Flags().StringVar(&cache, "cache", "", "folder that keeps results between builds; default: ingot/images in the user's cache folder")
	c.Flags().StringVar(&out, "out", "", "make this a link to the result")
	return c
}

func imageLabCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "lab FOLDER",
		Short: "Write stand-in images for lab machines, which execute no code, as a folder for image import",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return writeLabImages(args[0])
		},
	}
}

// importImages imports a folder's images, those that wanted accepts when it is not nil, and returns their names.
func importImages(ctx context.Context, s *store, dir string, wanted func(name, arch string) bool) ([]string, error) {
	m, err := image.ReadManifest(dir)
	if err != nil {
		return nil, fmt.Errorf("images in %s: %w", dir, err)
	}
	type key struct{ name, arch string }
	var order []key
	sets := map[key]map[string]string{}
	for _, f := range m.Files {
		k := key{f.Name, f.Architecture}
		if sets[k] == nil {
			sets[k] = map[string]string{}
			order = append(order, k)
		}
		sets[k][f.FileType] = filepath.Join(dir, f.File)
	}
	ctx = provisioner.WithActor(ctx, provisioner.SystemActor())
	var names []string
	for _, k := range order {
		if wanted != nil && !wanted(k.name, k.arch) {
			continue
		}
		if err := s.rules.ImportLocalImage(ctx, k.name, k.arch, sets[k]); err != nil {
			return names, err
		}
		names = append(names, k.name+" "+k.arch)
	}
	return names, nil
}

// importMissing imports of a folder what the installation has no image of.
func importMissing(ctx context.Context, s *store, dir string) ([]string, error) {
	have := map[string]bool{}
	all, err := s.rules.BootResources(provisioner.WithActor(ctx, provisioner.SystemActor()), "all")
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		have[r.Name+" "+r.Architecture] = true
	}
	return importImages(ctx, s, dir, func(name, arch string) bool { return !have[name+" "+arch] })
}

// The stand-ins of the lab. They are as large as it takes to see that they really travel.
var labBlobs = []struct {
	name, title, filetype, file string
	size                        int
}{
	{"ingot/light", "Light environment (lab stand-in)", "boot-kernel", "light-kernel", 512 << 10},
	{"ingot/light", "Light environment (lab stand-in)", "boot-initrd", "light-initrd", 768 << 10},
	{"ingot/full", "Full environment (lab stand-in)", "boot-kernel", "full-kernel", 512 << 10},
	{"ingot/full", "Full environment (lab stand-in)", "boot-initrd", "full-initrd", 768 << 10},
	{"ingot/full", "Full environment (lab stand-in)", "squashfs", "full-root", 2 << 20},
	{"ingot/agent", "Agent (lab stand-in)", "agent", "agent", 64 << 10},
	{"custom/lab", "Lab image: deployable on lab machines only", "root-tgz", "lab-root.tgz", 2 << 20},
}

const labNote = "Ingot lab stand-in. Lab machines fetch and verify this file but execute nothing: it boots on no real machine.\n"

// writeLabImages writes the stand-ins and their manifest. The same bytes each time, so that importing twice changes nothing.
func writeLabImages(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	m := image.Manifest{Version: 1}
	for i, b := range labBlobs {
		rnd := rand.New(rand.NewChaCha8([32]byte{byte(i + 1)}))
		filler := make([]byte, b.size)
		for j := range filler {
			filler[j] = byte(rnd.Uint32())
		}
		data := append([]byte(labNote), filler...)
		if b.filetype == "root-tgz" {
			var err error
			if data, err = labTarball(filler); err != nil {
				return err
			}
		}
		if b.filetype == "agent" {
			// The real agent, when it was built beside this program.
			if exe, err := os.Executable(); err == nil {
				real, err := os.ReadFile(filepath.Join(filepath.Dir(exe), "ingot-agent-amd64"))
				if err == nil {
					data = real
				} else if !errors.Is(err, os.ErrNotExist) {
					return err
				}
			}
		}
		sum := sha256.Sum256(data)
		if err := os.WriteFile(filepath.Join(dir, b.file), data, 0o644); err != nil {
			return err
		}
		m.Files = append(m.Files, image.File{Name: b.name, Title: b.title, Architecture: "amd64/generic", FileType: b.filetype, File: b.file,
			SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data))})
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, image.ManifestName), append(raw, '\n'), 0o644)
}

func labTarball(filler []byte) ([]byte, error) {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	t := tar.NewWriter(z)
	for _, f := range []struct {
		name string
		data []byte
	}{
		{"etc/os-release", []byte("ID=lab\nNAME=\"Ingot lab\"\nVERSION_ID=1\n")},
		{"README", []byte(labNote)},
		{"usr/share/filler", filler},
	} {
		if err := t.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data))}); err != nil {
			return nil, err
		}
		if _, err := t.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func goArch() string { return runtime.GOARCH }
