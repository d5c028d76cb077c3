//! Which service a request is for, by its path. tonic's own router brings a web framework along for this.

use std::convert::Infallible;
use std::task::{Context, Poll};

use corten_cri_api::corten_v1::images_server::{ImagesServer, SERVICE_NAME as IMAGES};
use corten_cri_api::v1::image_service_server::{ImageServiceServer, SERVICE_NAME as IMAGE_SERVICE};
use corten_cri_api::v1::runtime_service_server::{RuntimeServiceServer, SERVICE_NAME as RUNTIME_SERVICE};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service as HttpService, http};

use super::Service;

/// What a kubelet sends and takes: lists of a full node and more.
const MESSAGE_LIMIT_BYTES: usize = 16 << 20;

/// All services of the socket.
#[derive(Clone)]
pub struct Router {
    runtime: RuntimeServiceServer<Service>,
    image: ImageServiceServer<Service>,
    own: ImagesServer<Service>,
}

impl Router {
    pub fn new(service: Service) -> Self {
        // Answers are as long as they are: what does not fit is the client's to refuse.
        let unbounded = usize::MAX;
        Self {
            runtime: RuntimeServiceServer::new(service.clone())
                .max_decoding_message_size(MESSAGE_LIMIT_BYTES)
                .max_encoding_message_size(unbounded),
            image: ImageServiceServer::new(service.clone())
                .max_decoding_message_size(MESSAGE_LIMIT_BYTES)
                .max_encoding_message_size(unbounded),
            own: ImagesServer::new(service),
        }
    }
}

impl HttpService<http::Request<Body>> for Router {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        match service {
            RUNTIME_SERVICE => self.runtime.call(request),
            IMAGE_SERVICE => self.image.call(request),
            IMAGES => self.own.call(request),
            other => {
                let status = Status::unimplemented(format!("no gRPC service {other:?} here"));
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}
