package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

func renderNotification(n provisioner.NotificationFor) api.Notification {
	out := api.Notification{ResourceURI: apiRoot + "notifications/" + itoa(n.ID) + "/", ID: n.ID, Ident: n.Ident, Users: n.Users, Admins: n.Admins,
		Message: n.Message, Context: map[string]any{}, Category: n.Category, Dismissable: n.Dismissable}
	if len(n.Context) > 0 {
		_ = json.Unmarshal(n.Context, &out.Context) // was checked when it was stored
	}
	if n.User != nil {
		u := renderUser(*n.User)
		out.User = &u
	}
	return out
}

func notification(n provisioner.NotificationFor, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderNotification(n))
}

// NotificationsList answers what the caller is to read.
func (s *Server) NotificationsList(ctx context.Context, _ api.NotificationsListParams) (oapi.Response, error) {
	list, err := s.P.Notifications(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, renderNotification))
}

// NotificationsCreate makes a notification.
func (s *Server) NotificationsCreate(ctx context.Context, p api.NotificationsCreateParams) (oapi.Response, error) {
	dismissable := p.Dismissable == nil || *p.Dismissable == "true"
	return notification(s.P.CreateNotification(ctx, provisioner.NotificationInput{Message: &p.Message, Context: p.Context, Category: p.Category, Ident: p.Ident,
		User: p.User, Users: p.Users, Admins: p.Admins, Dismissable: &dismissable}))
}

// NotificationRead answers a notification.
func (s *Server) NotificationRead(ctx context.Context, p api.NotificationReadParams) (oapi.Response, error) {
	return notification(s.P.Notification(ctx, p.ID))
}

// NotificationUpdate changes a notification. Only the word true keeps it dismissable.
func (s *Server) NotificationUpdate(ctx context.Context, p api.NotificationUpdateParams) (oapi.Response, error) {
	dismissable := text(p.Dismissable) == "true"
	return notification(s.P.UpdateNotification(ctx, p.ID, provisioner.NotificationInput{Message: p.Message, Context: p.Context, Category: p.Category,
		Ident: p.Ident, User: p.User, Users: p.Users, Admins: p.Admins, Dismissable: &dismissable}))
}

// NotificationDelete removes a notification.
func (s *Server) NotificationDelete(ctx context.Context, p api.NotificationDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteNotification(ctx, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// NotificationDismiss hides a notification from the caller.
func (s *Server) NotificationDismiss(ctx context.Context, p api.NotificationDismissParams) (oapi.Response, error) {
	if err := s.P.DismissNotification(ctx, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Null()
}

func renderFile(f storage.File) api.StoredFile {
	// A name may hold slashes, which stay what they are in the path.
	parts := strings.Split(f.Filename, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return api.StoredFile{Filename: f.Filename, AnonResourceURI: apiRoot + "files/?op=get_by_key&key=" + f.Key,
		ResourceURI: apiRoot + "files/" + strings.Join(parts, "/") + "/", Content: f.Content}
}

// FilesList answers the caller's files.
func (s *Server) FilesList(ctx context.Context, p api.FilesListParams) (oapi.Response, error) {
	list, err := s.P.Files(ctx, text(p.Prefix))
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, func(f storage.File) api.StoredFileListing {
		x := renderFile(f)
		return api.StoredFileListing{Filename: x.Filename, AnonResourceURI: x.AnonResourceURI, ResourceURI: x.ResourceURI}
	}))
}

// FilesCreate keeps a file.
func (s *Server) FilesCreate(ctx context.Context, p api.FilesCreateParams) (oapi.Response, error) {
	name := text(p.Filename)
	uploads := 0
	for _, f := range p.Files {
		if f.Field != "filename" { // some clients send every value as a file
			uploads++
		}
	}
	switch {
	case name == "":
		return oapi.Response{}, provisioner.Errorf(provisioner.Invalid, "Filename not supplied")
	case uploads == 0 && p.File == nil:
		return oapi.Response{}, provisioner.Errorf(provisioner.Invalid, "File not supplied")
	case uploads > 1 || p.File == nil:
		return oapi.Response{}, provisioner.Errorf(provisioner.Invalid, "Exactly one file must be supplied")
	}
	if err := s.P.SaveFile(ctx, name, p.File.Content); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Text(http.StatusCreated, "")
}

const fileType = "application/octet-stream"

// FilesGet answers a file's content.
func (s *Server) FilesGet(ctx context.Context, p api.FilesGetParams) (oapi.Response, error) {
	f, err := s.P.File(ctx, p.Filename)
	if missing(err) {
		return oapi.Response{}, provisioner.Errorf(provisioner.NotFound, "File not found")
	}
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.Bytes(fileType, f.Content)
}

// FilesGetByKey answers the content of the file that has a key, to anybody.
func (s *Server) FilesGetByKey(ctx context.Context, p api.FilesGetByKeyParams) (oapi.Response, error) {
	f, err := s.P.FileByKey(ctx, p.Key)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.Bytes(fileType, f.Content)
}

// FilesDelete removes a file.
func (s *Server) FilesDelete(ctx context.Context, p api.FilesDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteFile(ctx, p.Filename); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

func missing(err error) bool {
	var e *provisioner.Error
	return errors.As(err, &e) && e.Kind == provisioner.NotFound
}

// FileRead answers a file as an object. One that is not there is told with a header that Juju's old client looks for.
func (s *Server) FileRead(ctx context.Context, p api.FileReadParams) (oapi.Response, error) {
	f, err := s.P.File(ctx, p.Filename)
	if missing(err) {
		r, _ := oapi.Text(http.StatusNotFound, "Not Found")
		return r.With("Workaround", "bug1123986"), nil
	}
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderFile(f))
}

// FileDelete removes a file.
func (s *Server) FileDelete(ctx context.Context, p api.FileDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteFile(ctx, p.Filename); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}
