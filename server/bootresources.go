package server

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// renderBootResource renders a resource as lists show it. Facts beyond the common ones stand at the top level.
func renderBootResource(r storage.BootResource) api.BootResource {
	out := api.BootResource{ResourceURI: apiRoot + "boot-resources/" + itoa(r.ID) + "/", ID: r.ID, Type: "Synced", Name: r.Name, Architecture: r.Architecture}
	if r.Rtype == storage.ResourceUploaded {
		out.Type = "Uploaded"
	}
	extra := map[string]any{}
	if err := json.Unmarshal(r.Extra, &extra); err != nil {
		return out // the store holds nothing but objects
	}
	take := func(key string) *string {
		v, ok := extra[key].(string)
		if !ok {
			return nil
		}
		delete(extra, key)
		return &v
	}
	out.Subarches, out.Title, out.BaseImage = take("subarches"), take("title"), take("base_image")
	if len(extra) > 0 {
		out.Extra = extra
	}
	return out
}

// renderBootSets renders a resource with its versions.
func renderBootSets(v provisioner.BootResourceView) api.BootResource {
	out := renderBootResource(v.BootResource)
	out.Sets = map[string]api.BootResourceSet{}
	for _, set := range v.Sets {
		x := api.BootResourceSet{Version: set.Version, Label: set.Label, Complete: true, Files: map[string]api.BootResourceFile{}}
		var have int64
		for _, f := range v.Files[set.ID] {
			y := api.BootResourceFile{Filename: f.Filename, Filetype: f.Filetype, SHA256: f.SHA256, FilenameOnDisk: f.SHA256, Size: f.Size, Complete: f.Complete}
			got := f.Uploaded
			if f.Complete {
				got = f.Size
			} else {
				x.Complete = false
				p := percent(got, f.Size)
				y.Progress = &p
				if v.Rtype == storage.ResourceUploaded {
					uri := out.ResourceURI + "upload/" + itoa(f.ID) + "/"
					y.UploadURI = &uri
				}
			}
			x.Size += f.Size
			have += got
			x.Files[f.Filename] = y
		}
		if !x.Complete {
			p := percent(have, x.Size)
			x.Progress = &p
		}
		out.Sets[set.Version] = x
	}
	return out
}

func percent(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole) * 100
}

// BootResourcesList answers all images, without their versions.
func (s *Server) BootResourcesList(ctx context.Context, p api.BootResourcesListParams) (oapi.Response, error) {
	kind := "all"
	if p.Type != nil {
		kind = *p.Type
	}
	list, err := s.P.BootResources(ctx, kind)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, renderBootResource))
}

// BootResourcesCreate announces an upload.
func (s *Server) BootResourcesCreate(ctx context.Context, p api.BootResourcesCreateParams) (oapi.Response, error) {
	v, err := s.P.CreateBootResource(ctx, provisioner.ImageInput{Name: p.Name, Architecture: p.Architecture, SHA256: p.SHA256, Size: p.Size, Title: p.Title,
		Filetype: p.Filetype, BaseImage: p.BaseImage, KeepOld: p.KeepOld != nil && *p.KeepOld})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusCreated, renderBootSets(v))
}

// BootResourceRead answers an image with its versions.
func (s *Server) BootResourceRead(ctx context.Context, p api.BootResourceReadParams) (oapi.Response, error) {
	v, err := s.P.BootResource(ctx, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderBootSets(v))
}

// BootResourceDelete removes an image.
func (s *Server) BootResourceDelete(ctx context.Context, p api.BootResourceDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteBootResource(ctx, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// BootResourceFileUploadUpload takes the next piece of an announced file, straight from the connection.
func (s *Server) BootResourceFileUploadUpload(ctx context.Context, p api.BootResourceFileUploadUploadParams) (oapi.Response, error) {
	if p.Raw == nil {
		return oapi.Response{}, provisioner.Errorf(provisioner.Invalid, "Missing data.")
	}
	if err := s.P.UploadChunk(ctx, p.ResourceID, p.ID, p.Raw); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Text(http.StatusOK, "OK")
}

// BootResourcesIsImporting answers whether images are being imported from a mirror.
func (s *Server) BootResourcesIsImporting(ctx context.Context, _ api.BootResourcesIsImportingParams) (oapi.Response, error) {
	on, err := s.P.Importing(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, on)
}

// BootResourcesImport orders an import from all enabled boot sources.
func (s *Server) BootResourcesImport(ctx context.Context, _ api.BootResourcesImportParams) (oapi.Response, error) {
	if err := s.P.ImportImages(ctx); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Text(http.StatusOK, "Import of boot resources started")
}

// BootResourcesStopImport ends the import that is under way.
func (s *Server) BootResourcesStopImport(ctx context.Context, _ api.BootResourcesStopImportParams) (oapi.Response, error) {
	if err := s.P.StopImport(ctx); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Text(http.StatusOK, "Import of boot resources is being stopped")
}
