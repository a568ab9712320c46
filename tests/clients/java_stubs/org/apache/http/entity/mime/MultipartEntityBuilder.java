package org.apache.http.entity.mime;

import java.io.File;
import org.apache.http.HttpEntity;

public class MultipartEntityBuilder {
  public static MultipartEntityBuilder create() { throw new UnsupportedOperationException(); }
  public MultipartEntityBuilder addBinaryBody(String name, File file) { return this; }
  public MultipartEntityBuilder addTextBody(String name, String text) { return this; }
  public HttpEntity build() { return null; }
}
