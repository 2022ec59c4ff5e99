package server

import (
	"context"
	"net/http"
	"net/url"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

func renderUser(u storage.User) api.User {
	return api.User{ResourceURI: "/MAAS/api/2.0/users/" + url.PathEscape(u.Username) + "/", Username: u.Username, Email: u.Email, IsLocal: true, IsSuperuser: u.IsSuperuser}
}

// UsersList lists all users.
func (s *Server) UsersList(ctx context.Context, _ api.UsersListParams) (oapi.Response, error) {
	users, err := s.P.Users(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	out := make([]api.User, 0, len(users))
	for _, u := range users {
		out = append(out, renderUser(u))
	}
	return oapi.JSON(http.StatusOK, out)
}

// UsersCreate adds a user.
func (s *Server) UsersCreate(ctx context.Context, p api.UsersCreateParams) (oapi.Response, error) {
	spec := provisioner.UserSpec{Username: p.Username, Email: p.Email, Password: p.Password, Admin: p.IsSuperuser}
	if p.Key != nil {
		spec.SSHKey = *p.Key
	}
	u, err := s.P.CreateUser(ctx, spec)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderUser(u))
}

// UsersWhoami answers the caller.
func (s *Server) UsersWhoami(ctx context.Context, _ api.UsersWhoamiParams) (oapi.Response, error) {
	return oapi.JSON(http.StatusOK, renderUser(provisioner.ActorFrom(ctx).User))
}

// UserRead reads one user.
func (s *Server) UserRead(ctx context.Context, p api.UserReadParams) (oapi.Response, error) {
	u, err := s.P.User(ctx, p.Username)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderUser(u))
}

// UserDelete deletes a user.
func (s *Server) UserDelete(ctx context.Context, p api.UserDeleteParams) (oapi.Response, error) {
	heir := ""
	if p.TransferResourcesTo != nil {
		heir = *p.TransferResourcesTo
	}
	if err := s.P.DeleteUser(ctx, p.Username, heir); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}
