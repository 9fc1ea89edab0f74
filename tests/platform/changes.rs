//! `GET /v1/views/{v}/changes`: whoever applies what he is told has the view, whatever happens on the way.
//! (R-058, issue 5 point 4)

mod append;
mod cases;
mod follower;

pub(crate) use follower::Follower;
